"""The commands, options and links of the documentation exist."""

import argparse
import functools
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.registry import BENCHMARKS
from core.errors import BadInput
from core.options import Parser
from pipelines.cli import make_parser
from tests.support.pages import FENCE, blocks, called_program, commands
from tests.support.paths import REPOSITORY
from train.__main__ import make_parser as make_train_parser

PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
README = REPOSITORY / "README.md"
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)")
each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY))
)


def problem(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return why a command line is invalid; empty if it is valid or not one of this project."""
    program, rest = called_program(words)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        return ", ".join(word for word in rest if "=" not in word and word not in targets)
    if program in ("lrm", "train"):
        try:
            (make_parser() if program == "lrm" else make_train_parser()).parse_args(rest)
        except (BadInput, SystemExit) as error:
            return str(error) + capsys.readouterr().err
        return ""
    if program == "benchmarks":
        return ", ".join(name for name in rest[:1] if name not in BENCHMARKS)
    return "" if not program or importlib.util.find_spec(program) else f"no module {program}"


def parser_of(words: list[str]) -> argparse.ArgumentParser:
    """Return the parser of the command that the words begin with, or raise LookupError."""
    parser: argparse.ArgumentParser = make_parser()
    for word in words:
        below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if not below or word.startswith("-") or word.isupper():
            break
        parser = below[0].choices[word]
        if isinstance(parser, Parser):
            parser.populate()
    return parser


def all_options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the options of a command and of all its subcommands."""
    if isinstance(parser, Parser):
        parser.populate()
    yield from parser._option_string_actions
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from all_options(below)


@functools.cache
def every_option() -> frozenset[str]:
    return frozenset(all_options(make_parser()))


def unknown_in_text(text: str) -> Iterator[str]:
    """Yield inline code (`lrm build --geometry`, `--render.device gpu`) that names nothing real."""
    for code in CODE.findall(FENCE.sub("", text)):
        first, *words = code.split() or [""]
        options = [word.partition("=")[0] for word in words if re.fullmatch(r"--[\w.=-]+\w", word)]
        if first == "lrm":
            try:
                known = set(all_options(parser_of(words)))
            except LookupError:
                yield code
                continue
            yield from (code for option in options if option not in known)
        elif re.fullmatch(r"--\w[\w-]*\.[\w.-]+", first) and first not in every_option():
            yield code


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def broken_links(page: Path) -> Iterator[str]:
    """Yield the relative links and images of a page whose target does not exist."""
    for target, anchor in LINK.findall(FENCE.sub("", page.read_text())):
        path = page.parent / target if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            yield f"{target}#{anchor}"


@each_page
def test_every_command_exists_with_its_options(page, capsys):
    command_lines = [words for _, text in blocks(page) for words in commands(text)]
    problems = {shlex.join(words): problem(words, capsys) for words in command_lines}
    assert {line: why for line, why in problems.items() if why} == {}
    assert list(unknown_in_text(page.read_text())) == []


@each_page
def test_every_link_has_a_target(page):
    assert list(broken_links(page)) == []


def linked_pages(page: Path) -> set[Path]:
    """Return the pages of the project that a page links to."""
    targets = {(page.parent / target).resolve() for target, _ in LINK.findall(page.read_text())}
    return targets & set(PAGES)


def test_every_page_can_be_reached_from_the_readme():
    reached, waiting = set(), {README}
    while waiting:
        page = waiting.pop()
        reached.add(page)
        waiting |= linked_pages(page) - reached
    assert set(PAGES) - reached == set()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("lrm status --root X", ""),
        ("lrm status --root X && lrm status --root X --rooot Y  # no", "--rooot"),
        ("ID=$(lrm snapshot --roo X --json | python -c 'pass')", "--roo"),
        ('eval "$(lrm completions bash)"', "completions"),
        ("python -m pipelines.cli verify", "--root"),
        (
            "ray job submit --address A -- \\\n    python -m pipelines.cli build --sourse S",
            "--sourse",
        ),
        ("torchrun --nproc-per-node 8 -m train nerf --root X --snapshots Y", "--snapshots"),
        ("python -m pipelines.no_demo models", "pipelines.no_demo"),
        ("python -m benchmarks lodaer --root X", "lodaer"),
        ("python -m benchmarks loader --root X", ""),
        ("make demo OUT=lrm tset", "tset"),
        ("make test-slow", ""),
        ("export A=lrm; ls lrm.yaml", ""),
    ],
)
def test_a_wrong_command_is_detected(line, why, capsys):
    problems = [problem(words, capsys) for words in commands(line)]
    assert why in "".join(problems)
    assert any(problems) == bool(why)


def test_wrong_inline_code_and_wrong_links_are_detected(tmp_path):
    (tmp_path / "b.md").write_text("# Some `code`, and a heading\n")
    page = tmp_path / "a.md"
    page.write_text(
        "`lrm build --geometry`, `lrm train RECIPE --dry-run`, `--render.device gpu`, `--mine`\n"
        "`lrm bild`, `lrm plan --geometri`, `--render.devise gpu`\n"
        "[a](b.md) [b](b.md#some-code-and-a-heading) [c](https://example.org/x.md)\n"
        "[d](c.md) ![e](c.png) [f](b.md#other) [g](#here)\n"
    )
    wrong = ["lrm bild", "lrm plan --geometri", "--render.devise gpu"]
    assert list(unknown_in_text(page.read_text())) == wrong
    assert list(broken_links(page)) == ["c.md#", "c.png#", "b.md#other", "#here"]
