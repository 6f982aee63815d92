"""The command line as a contract: its commands, options, help texts and exit codes."""

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
"""Maximum lines of a command's help at 80 columns."""


def parser_of(words: list[str]) -> Parser:
    parser = make_parser()
    for word in words:
        parser.populate()
        subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parser = subparsers.choices[word]
    parser.populate()
    return parser


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_info:
        main(words)
    assert exit_info.value.code == 0
    return capsys.readouterr().out


def options_of(words: list[str]) -> list[str]:
    """Return the names of a command's options, without `--help` and deprecated names.

    An on/off option counts once; its `--no-` form is not listed.
    """
    names = {action.option_strings[0] for action in shown_options(parser_of(words))}
    return sorted(f"{' '.join(words)} {name}" for name in names - {"-h", "--help-all"})


def test_options_equal_the_frozen_list():
    """Users' scripts rely on the options: change options.txt only on purpose."""
    expected = OPTIONS.read_text().splitlines()
    assert [line for words in WORDS for line in options_of(words)] == expected


@each_command
def test_the_help_of_a_command_fits_a_screen(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = help_of([*words, "--help"], capsys).splitlines()
    option_lines = [line for line in lines if re.match(r"  -", line)]
    assert len(option_lines) <= MAX_OPTIONS
    assert len(lines) <= MAX_LINES
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("example:") for line in lines)


@each_command
def test_help_all_lists_every_option(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    options = shown_options(parser_of(words))
    pointer = f"`lrm {' '.join(words)} --help-all` shows the other "
    short = help_of([*words, "--help"], capsys)
    if "--help-all" not in short:
        whole = short
    else:
        count = int(short.splitlines()[-1].removeprefix(pointer).split()[0])
        assert count + len(re.findall("^  -", short, re.MULTILINE)) == len(options)
        whole = help_of([*words, "--help-all"], capsys)
    assert pointer not in whole
    option_names = re.findall(r"^  (-\S+)", whole, re.MULTILINE)
    assert len(option_names) == len(options)


@each_command
def test_every_option_has_a_help_text(words):
    """The text is a sentence, or ends with the default value that the help adds."""
    for action in shown_options(parser_of(words)):
        text = meaning(action)
        assert text, action.option_strings
        assert re.match(r"[A-Z`'\"0-9.]", text), text
        assert text.endswith((".", "]", ")")), text


def test_help_command_prints_what_command_help_prints(capsys):
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


def test_the_commands_equal_the_contract():
    names = [command.name for command in COMMANDS]
    assert names == [
        "build",
        "plan",
        "status",
        "history",
        "list",
        "inspect",
        "report",
        "verify",
        "repair",
        "retry",
        "remove",
        "compact",
        "snapshot",
        "diff",
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


def test_every_command_has_one_file():
    files = REPOSITORY.glob("pipelines/cli/commands/[!_]*.py")
    assert {path.stem for path in files} == {command.name for command in COMMANDS}


@pytest.mark.parametrize("words", [[], ["--help"], ["train", "--help"]])
def test_help_names_the_commands(words):
    answer = run_lrm(*words)
    assert answer.code == (0 if words else 2)
    if words:
        assert all(name in answer.out for name in (RECIPES if "train" in words else ["build"]))


def test_a_missing_command_is_bad_usage_and_shows_the_help():
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
def test_a_mistyped_command_gives_one_line_of_error(words, line):
    answer = run_lrm(*words)
    assert (answer.code, answer.out, answer.err) == (2, "", f"{line}\n")


def test_the_installed_command_prints_the_same_help():
    installed = Path(sys.executable).with_name("lrm")
    if not installed.exists():
        pytest.skip("the project is not installed in this environment")
    environment = {**os.environ, **WIDTH}
    result = subprocess.run(
        [installed, "--help"], capture_output=True, text=True, cwd="/", env=environment
    )
    assert result.stdout == run_lrm("--help").out


def test_a_closed_pipe_prints_no_error():
    """The reader of the pipe has closed it before the first byte is written."""
    command = f"{sys.executable} -m pipelines.cli completion bash"
    result = subprocess.run(
        ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert (result.stdout, result.stderr) == ("1\n", "")


HEAVY = "bpy cv2 deepspeed deltalake diffusers duckdb pandas pyarrow ray scipy torch transformers"


@pytest.mark.parametrize(
    "words", ["--help", "train --help", "train --status {run}", "help doctor", "--version"]
)
def test_help_and_the_status_of_a_run_import_no_heavy_package(words, tmp_path):
    run = {
        "first_step": 0,
        "config": {"steps": 3, "checkpoints": None},
        "started": "2026",
        "hosts": ["a"],
    }
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
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert (result.returncode, result.stderr.strip()) == (0, "")
    assert result.stdout


def test_the_command_line_starts_without_the_packages_of_builds_and_training():
    """So `lrm doctor` can name missing packages, and every command starts quickly."""
    heavy = {"OpenEXR", "PIL", "bpy", "deepspeed", "psutil", "ray", "scipy", "torch"}
    code = f"import sys, pipelines.cli; print(*sorted({heavy} & set(sys.modules)))"
    words = [sys.executable, "-c", code]
    result = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
