"""The command line is a contract: what it takes, and how it ends."""

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from core.options import Parser
from core.options.help_text import meaning, shown_options
from pipelines.cli import main, make_parser
from pipelines.cli.registry import COMMANDS
from tests.support.lrm import WIDTH, run_lrm
from tests.support.paths import OPTIONS, REPOSITORY
from train.recipes.registry import RECIPES

WORDS = [[command.name] for command in COMMANDS if command.name != "train"]
WORDS += [["train", name] for name in RECIPES]
each_command = pytest.mark.parametrize("words", WORDS, ids=" ".join)
MAX_OPTIONS = 24
MAX_LINES = 64
"""Of a command's help at 80 columns."""


def parser_of(words: list[str]) -> Parser:
    parser = make_parser()
    for word in words:
        parser.populate()
        below = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parser = below.choices[word]
    parser.populate()
    return parser


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 0
    return capsys.readouterr().out


def options_of(words: list[str]) -> list[str]:
    """The names of a command's options, without `--help` and old names.

    An on/off option counts once: every one has its `--no-` form.
    """
    names = {action.option_strings[0] for action in shown_options(parser_of(words))}
    return sorted(f"{' '.join(words)} {name}" for name in names - {"-h", "--help-all"})


def test_options_are_frozen():
    """A change here changes what users' scripts rely on: edit options.txt on purpose."""
    frozen = OPTIONS.read_text().splitlines()
    assert [line for words in WORDS for line in options_of(words)] == frozen


@each_command
def test_the_help_of_a_command_fits_a_screen(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = help_of([*words, "--help"], capsys).splitlines()
    listed = [line for line in lines if re.match(r"  -", line)]
    assert len(listed) <= MAX_OPTIONS
    assert len(lines) <= MAX_LINES
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("example:") for line in lines)


@each_command
def test_every_option_is_in_the_whole_help(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    options = shown_options(parser_of(words))
    rest = f"`lrm {' '.join(words)} --help-all` shows the other "
    short = help_of([*words, "--help"], capsys)
    if "--help-all" not in short:
        whole = short
    else:
        count = int(short.splitlines()[-1].removeprefix(rest).split()[0])
        assert count + len(re.findall("^  -", short, re.MULTILINE)) == len(options)
        whole = help_of([*words, "--help-all"], capsys)
    assert rest not in whole
    listed = re.findall(r"^  (-\S+)", whole, re.MULTILINE)
    assert len(listed) == len(options)


@each_command
def test_every_option_says_what_it_does(words):
    """In sentences, with the default written by the help and not by hand where it is known."""
    for action in shown_options(parser_of(words)):
        text = meaning(action)
        assert text, action.option_strings
        assert re.match(r"[A-Z`'\"0-9.]", text), text
        assert text.endswith((".", "]", ")")), text


def test_the_help_of_a_command_can_be_asked_in_two_ways(capsys):
    assert help_of(["help", "build"], capsys) == help_of(["build", "--help"], capsys)
    assert help_of(["help"], capsys) == help_of(["--help"], capsys)
    whole = help_of(["help", "train", "nerf"], capsys)
    assert whole == help_of(["train", "nerf", "--help"], capsys)


def test_the_version_is_that_of_the_checkout(capsys):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert help_of(["--version"], capsys) == f"lrm {project['version']}\n"


def test_every_command_shows_all_options(capsys):
    for words in (["--help-all"], *([*words, "--help-all"] for words in WORDS)):
        assert help_of(words, capsys).startswith("usage: lrm")


def test_only_train_has_recipes():
    answer = run_lrm("help", "build", "plan")
    assert (answer.code, answer.err) == (
        2,
        "lrm help: error: lrm build has no recipes: leave out plan\n",
    )


def test_every_command_is_in_the_contract():
    names = [command.name for command in COMMANDS]
    reading = ["build", "plan", "status", "inspect", "report", "verify"]
    assert names == [
        *reading,
        "retry",
        "remove",
        "compact",
        "snapshot",
        "export",
        "train",
        "weights",
        "multiview",
        "reconstruct",
        "evaluate",
        "doctor",
        "completion",
        "help",
    ]
    assert isinstance(make_parser(), Parser)


def test_every_command_has_one_entry():
    files = REPOSITORY.glob("pipelines/cli/commands/[!_]*.py")
    assert {path.stem for path in files} == {command.name for command in COMMANDS}


@pytest.mark.parametrize("words", [[], ["--help"], ["train", "--help"]])
def test_help_names_the_commands(words):
    answer = run_lrm(*words)
    assert answer.code == (0 if words else 2)
    if words:
        assert all(name in answer.out for name in (RECIPES if "train" in words else ["build"]))


def test_no_command_is_bad_usage_and_shows_the_help():
    answer = run_lrm()
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == run_lrm("--help").out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["biuld"], "lrm: error: unknown command biuld; did you mean build?"),
        (["dance"], "lrm: error: unknown command dance; lrm --help lists them"),
        (["help", "reprot"], "lrm: error: unknown command reprot; did you mean report?"),
        (["train", "nref"], "lrm train: error: unknown recipe nref; did you mean nerf?"),
    ],
)
def test_a_mistyped_command_is_one_line(words, line):
    answer = run_lrm(*words)
    assert (answer.code, answer.out, answer.err) == (2, "", f"{line}\n")


def test_the_installed_command_is_the_same():
    installed = Path(sys.executable).with_name("lrm")
    if not installed.exists():
        pytest.skip("the project is not installed in this environment")
    wide = {**os.environ, **WIDTH}
    done = subprocess.run([installed, "--help"], capture_output=True, text=True, cwd="/", env=wide)
    assert done.stdout == run_lrm("--help").out


def test_a_reader_that_leaves_is_no_error():
    """It has left before the first byte is written."""
    command = f"{sys.executable} -m pipelines.cli completion bash"
    done = subprocess.run(
        ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


HEAVY = "bpy cv2 deepspeed deltalake diffusers duckdb pandas pyarrow ray scipy torch transformers"


@pytest.mark.parametrize(
    "words", ["--help", "train --help", "train --status {run}", "help doctor", "--version"]
)
def test_help_and_the_state_of_a_run_load_nothing_heavy(words, tmp_path):
    run = {"config": {"steps": 3, "checkpoints": None}, "started": "2026", "hosts": ["a"]}
    (tmp_path / "run.json").write_text(json.dumps(run))
    code = f"""
import sys
from pipelines.cli import main
try:
    code = main({words.format(run=tmp_path).split()})
except SystemExit as end:
    code = end.code
print(*sorted(set({HEAVY.split()}) & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert done.stdout


def test_the_command_line_starts_without_the_packages_of_builds_and_training():
    """So `lrm doctor` can name those that are missing, and every command starts at once."""
    heavy = {"OpenEXR", "PIL", "bpy", "deepspeed", "psutil", "ray", "scipy", "torch"}
    code = f"import sys, pipelines.cli; print(*sorted({heavy} & set(sys.modules)))"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
