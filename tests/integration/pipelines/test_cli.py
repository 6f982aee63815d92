"""The command line is a contract: what it takes, and how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.options import Parser
from pipelines.cli import main, make_parser
from pipelines.cli.registry import COMMANDS
from tests.support.lrm import WIDTH, run_lrm
from tests.support.paths import OPTIONS, REPOSITORY
from train.recipes.registry import RECIPES


def options_of(words: list[str], capsys) -> list[str]:
    """The options that a command's own help lists."""
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "example:" in said
    listed = (line.strip().split() for line in said.splitlines())
    names = {word.strip(",") for words in listed for word in words[:1] if word.startswith("--")}
    return sorted(f"{' '.join(words)} {name}" for name in names)


def test_options_are_frozen(capsys, monkeypatch):
    """A change here changes what users' scripts rely on: edit options.txt on purpose."""
    monkeypatch.setenv("COLUMNS", "200")
    commands = [[command.name] for command in COMMANDS if command.name != "train"]
    commands += [["train", name] for name in RECIPES]
    found = [line for words in commands for line in options_of(words, capsys)]
    assert found == OPTIONS.read_text().splitlines()


def test_every_command_is_in_the_contract():
    names = [command.name for command in COMMANDS]
    looking = ["build", "plan", "status", "inspect", "report", "verify"]
    assert names == [
        *looking,
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
    ]
    assert isinstance(make_parser(), Parser)


@pytest.mark.parametrize("words", [[], ["--help"], ["train", "--help"]])
def test_help_names_the_commands(words):
    answer = run_lrm(*words)
    assert answer.code == (0 if words else 2)
    if words:
        assert all(name in answer.out for name in (RECIPES if "train" in words else ["build"]))


def test_a_mistyped_command_is_one_line():
    answer = run_lrm("biuld")
    assert answer.code == 2
    assert len(answer.err.strip().splitlines()) == 1
    assert "biuld" in answer.err


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


def test_importing_the_command_line_loads_nothing_heavy():
    code = "import sys, pipelines.cli; print(sorted({'ray', 'torch', 'bpy'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_command_line_starts_without_the_packages_of_builds_and_training():
    """So `lrm doctor` can name those that are missing, and every command starts at once."""
    heavy = {"OpenEXR", "PIL", "bpy", "deepspeed", "psutil", "ray", "scipy", "torch"}
    code = f"import sys, pipelines.cli; print(*sorted({heavy} & set(sys.modules)))"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
