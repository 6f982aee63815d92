"""Full and read-only disks, few descriptors: a command does its work or says why it cannot."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.support.damage_table import ROOT_COMMANDS
from tests.support.lrm import Answer
from tests.support.paths import REPOSITORY

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"}
READING = {"plan", "status", "history", "list", "inspect", "verify", "diff"}
READING |= {"compact --dry-run", "snapshot --list"}


@pytest.fixture(scope="module")
def answers(damage_table, tmp_path_factory) -> dict[tuple[str, str], tuple[Answer, int]]:
    """Return the answer of every command on each disk, and the bytes that it has freed there."""
    base = tmp_path_factory.mktemp("disks")
    (base / "root").symlink_to(damage_table.base / "root")
    (base / "disk").mkdir()
    command = [*NAMESPACE, sys.executable, "-m", "tests.support.small_disks", str(base)]
    process = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd="/")
    if "unshare: " in process.stderr or "mount: " in process.stderr:
        pytest.skip(f"no small disk can be mounted here: {process.stderr.strip()}")
    assert process.returncode == 0, process.stderr
    return {
        (disk, command): (Answer(code, out, err), freed)
        for disk, command, code, out, err, freed in json.loads(process.stdout)
    }


def _errors(answer: Answer) -> list[str]:
    return [line for line in answer.err.splitlines() if not re.match(r"\[\d+:|.*warning: ", line)]


@pytest.mark.parametrize("disk", ["full", "read-only"])
@pytest.mark.parametrize("command", ROOT_COMMANDS)
def test_a_command_on_a_disk_that_takes_nothing(answers, disk, command):
    answer, _ = answers[disk, command]
    if command in READING:
        assert (answer.code, _errors(answer)) == (0, [])
        return
    reason = "No space left on device" if disk == "full" else "Read-only file system"
    if answer.code == 0:
        # It had nothing to write, or only to delete.
        assert (disk, command) in {
            ("full", command) for command in ("compact", "repair", "snapshot --delete")
        }
        assert _errors(answer) == []
        return
    assert answer.code in (1, 2)
    (line,) = _errors(answer)
    assert line.startswith(f"lrm {command.split()[0]}: error: ")
    assert "disk/" in line
    assert reason in line


def test_compact_frees_a_full_disk(answers):
    answer, freed = answers["full", "compact with garbage"]
    assert (answer.code, _errors(answer)) == (0, [])
    assert freed > 100_000
    assert json.loads(answer.out)["freed_bytes"] > 100_000


@pytest.mark.parametrize("limit", [16, 24, 32, 64])
@pytest.mark.parametrize("command", ["status", "plan", "list", "verify", "export"])
def test_few_descriptors(damage_table, tmp_path, limit, command):
    places = {"ROOT": damage_table.base / "root", "OUT": tmp_path / "out"}
    words = [str(places.get(word, word)) for word in ROOT_COMMANDS[command]]
    start = f'ulimit -n {limit}; exec "$@"'
    arguments = ["bash", "-c", start, "lrm", sys.executable, "-m", "pipelines.cli", *words]
    process = subprocess.run(arguments, capture_output=True, text=True, env=ENVIRONMENT, cwd="/")
    answer = Answer(process.returncode, process.stdout, process.stderr)
    assert answer.code in (0, 1)
    if answer.code == 1:
        (line,) = _errors(answer)
        assert "Too many open files" in line
        assert "ulimit -n" in line
