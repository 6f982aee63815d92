"""Shell completion, run by the shells themselves."""

import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from pipelines.cli.registry import COMMANDS
from tests.support.lrm import run_lrm, spawn_lrm
from tests.support.paths import OPTIONS
from tests.support.processes import environment_without
from train.recipes.registry import RECIPES

COMPLETE = """
source "$1"; shift
read -r _ _ _ _ function _ < <(complete -p lrm)
while IFS= read -r line; do
    IFS=' ' read -r -a COMP_WORDS <<< "${line% }"
    [[ $line == *' ' ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    COMPREPLY=()
    "$function" lrm "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    echo "${COMPREPLY[*]}"
done
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "tcsh"):
        answer = run_lrm("completion", shell)
        assert (answer.code, answer.err) == (0, "")
        (folder / shell).write_text(answer.out)
    return {shell: folder / shell for shell in ("bash", "zsh", "tcsh")}


def complete(script: Path, *lines: str) -> list[list[str]]:
    """Return the completions that bash offers at the end of each line."""
    result = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", str(script)],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        cwd=script.parent,
    )
    assert result.returncode == 0, result.stderr
    return [line.split() for line in result.stdout.splitlines()]


def test_commands_recipes_values_and_files(scripts):
    completions = complete(
        scripts["bash"],
        "lrm ",
        "lrm tr",
        "lrm train ",
        "lrm train nerf --precision ",
        "lrm build --render.device ",
        "lrm build --rig orb",
        "lrm build --render.device gpu --res",
        "lrm doctor --for ",
        "lrm build --config ba",
    )
    assert completions == [
        [command.name for command in COMMANDS],
        ["train"],
        list(RECIPES),
        ["fp32", "bf16"],
        ["cpu", "gpu"],
        ["orbit21"],
        [],
        ["build", "gpu", "train"],
        ["bash"],
    ]


def test_every_option_is_offered(scripts):
    options = defaultdict(set)
    for line in OPTIONS.read_text().splitlines():
        words, _, option = line.rpartition(" ")
        options[words].add(option)
    completions = complete(scripts["bash"], *(f"lrm {words} --" for words in options))
    for (words, expected), names in zip(options.items(), completions, strict=True):
        negated = {option for option in names if option.startswith("--no-")} - expected
        assert set(names) - negated - {"--help", "--help-all"} == expected, words
        assert bool(negated) == (words.split()[0] in ("build", "plan", "train")), words


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_shell_accepts_its_script(scripts, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    result = subprocess.run([shell, "-n", scripts[shell]], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_recipes_and_options_are_in_the_other_scripts(scripts, shell):
    script = scripts[shell].read_text()
    assert all(name in script for name in (*RECIPES, "zero-stage", "filters.occupancy.min-share"))


def test_a_command_whose_package_is_missing_is_left_out_with_a_note(tmp_path):
    python = environment_without(tmp_path / "venv", "torch")
    answer = spawn_lrm("completion", "bash", python=python)
    assert answer.code == 0
    assert "note: the options of lrm train nerf are left out: torch is not installed" in answer.err
    (tmp_path / "script").write_text(answer.out)
    assert complete(tmp_path / "script", "lrm build --lv") == [["--lvis"]]


def test_an_unknown_shell_gives_one_line_of_error():
    answer = run_lrm("completion", "cmd.exe")
    assert answer.code == 2
    assert len(answer.err.splitlines()) == 1
