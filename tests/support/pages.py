"""The commands in the code blocks of the documentation."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

OPERATORS = re.compile(r"[();<>|&]+")
HERE_DOCUMENT = re.compile(r"<<'?(\w+)'?\n.*?^\1$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str = "bash") -> Iterator[tuple[str, str]]:
    """Yield the mark (the text after the language) and the content of each code block."""
    for kind, text in FENCE.findall(page.read_text()):
        name, _, mark = kind.partition(" ")
        if name == language:
            yield mark, text


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each simple command, as a shell would pass them."""
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


def called_program(words: list[str]) -> tuple[str, list[str]]:
    """Return the program of this project that a command calls, and its arguments.

    The program is `lrm`, `make` or a module, also if another program starts it. An empty string
    means that the command calls none of them.
    """
    for i, word in enumerate(words):
        module = words[i + 1] if word == "-m" and i + 1 < len(words) else ""
        if word in ("lrm", ".venv/bin/lrm"):
            return "lrm", words[i + 1 :]
        if module:
            return module.replace("pipelines.cli", "lrm"), words[i + 2 :]
    return ("make", words[1:]) if words[0] == "make" else ("", [])
