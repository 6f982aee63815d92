"""Commands in the documentation."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

OPERATORS = re.compile(r"[();<>|&]+")


HERE_DOCUMENT = re.compile(r"<<'?(\w+)'?\n.*?^\1$", re.MULTILINE | re.DOTALL)


FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str = "bash") -> Iterator[tuple[str, str]]:
    """The mark and the text of each block in that language."""
    for kind, text in FENCE.findall(page.read_text()):
        name, _, mark = kind.partition(" ")
        if name == language:
            yield mark, text


def commands(text: str) -> Iterator[list[str]]:
    """The words of each simple command, as the shell would pass them."""
    text = HERE_DOCUMENT.sub("", text.replace("\\\n", " "))
    for line in re.sub(r'"(\$\([^"]*\))"', r"\1", text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not OPERATORS.fullmatch(word):
                words.append(word)
            elif words:
                yield words
                words = []


def called(words: list[str]) -> tuple[str, list[str]]:
    """The program of ours that a command calls, maybe by way of another, and its words.

    `lrm`, `make` or a module; empty if it calls none of ours.
    """
    for i, word in enumerate(words):
        module = words[i + 1] if word == "-m" and i + 1 < len(words) else ""
        if word in ("lrm", ".venv/bin/lrm"):
            return "lrm", words[i + 1 :]
        if module:
            return module.replace("pipelines.cli", "lrm"), words[i + 2 :]
    return ("make", words[1:]) if words[0] == "make" else ("", [])
