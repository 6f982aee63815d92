"""Unusual environments: a command does its work, or says in one line why it cannot."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import WorkFailed
from core.paths.temporary_folder import short_folder
from pipelines.demo.demo_mirror import CAPTIONS_FILE
from pipelines.ray_session import MAX_RAY_FOLDER, ray_session
from tests.support.datasets import QUICK
from tests.support.lrm import Answer, run_lrm, spawn_lrm
from tests.support.paths import REPOSITORY

HOST = "gpu-ü"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a training run, whose status is printed quickly."""
    (tmp_path / "run").mkdir()
    record = {
        "first_step": 0,
        "config": {"steps": 3, "checkpoints": None},
        "started": "2026",
        "hosts": [HOST],
    }
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    return tmp_path / "run"


def run_shell(command: str) -> Answer:
    """Run a shell command, in which `lrm` is the command line."""
    start = f'lrm() {{ {shlex.quote(sys.executable)} -m pipelines.cli "$@"; }}\n'
    result = subprocess.run(
        ["bash", "-c", start + command],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd="/",
    )
    return Answer(result.returncode, result.stdout, result.stderr)


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "xx_YY.none"},
        {"PYTHONIOENCODING": "ascii", "TERM": "dumb"},
        {"HOME": "/nonexistent", "COLUMNS": "0"},
        {"TMPDIR": "/nonexistent", "COLUMNS": "-1"},
        {"PATH": ""},
    ],
)
def test_a_status_is_printed_in_every_environment(run, environment):
    answer = spawn_lrm("train", "--status", run, **environment)
    assert (answer.code, answer.err) == (0, "")
    assert HOST in answer.out or r"gpu-\xfc" in answer.out


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("lrm train --status RUN > /dev/full", 1, "No space left on device"),
        ("lrm train --status RUN --json > /dev/full", 1, "No space left on device"),
        ("lrm train --status RUN >&-", 0, ""),
        ("lrm train --status RUN <&-", 0, ""),
        ("lrm help reprot 2>&-", 2, ""),
        ("mkdir gone; cd gone; rmdir ../gone; lrm status --root x", 2, "current folder"),
    ],
)
def test_streams_and_folders_that_are_missing(run, tmp_path, command, code, message):
    command = f"cd {shlex.quote(str(tmp_path))}; {command.replace('RUN', shlex.quote(str(run)))}"
    answer = run_shell(command)
    assert answer.code == code, answer.err
    assert message in answer.err
    assert answer.err.count("\n") == bool(message)


@pytest.mark.parametrize("columns", ["0", "1", "39", "-5", "²", "9" * 20])
def test_a_table_is_complete_on_a_terminal_of_any_width(built_dataset, columns):
    answer = run_lrm("status", "--root", built_dataset.root, COLUMNS=columns)
    assert answer.code == 0
    for word in ("kept", "dropped", "no_caption", "malformed"):
        assert word in answer.out


@pytest.mark.parametrize(
    ("make", "root", "message"),
    [
        (lambda path: path.write_text(""), "x", "not a folder"),
        (lambda path: path.write_text(""), "x/below", "not a folder"),
        (lambda path: path.symlink_to("/proc/none"), "x", "cannot write here"),
        (lambda path: path.mkdir(), "x/" + "n" * 300, "File name too long"),
        (lambda path: path.symlink_to(path), "x", "Too many levels"),
        (lambda path: path.symlink_to("/proc"), "x/below", "cannot write here"),
    ],
)
def test_a_root_that_cannot_be_written(demo_source, tmp_path, make, root, message):
    make(tmp_path / "x")
    words = ["--source", demo_source, "--captions", demo_source / CAPTIONS_FILE, *QUICK]
    answer = run_lrm("build", *words, "--root", tmp_path / root)
    assert (answer.code, answer.out) == (2, ""), answer.err
    assert answer.err.count("\n") == 1
    assert message in answer.err
    assert len([*tmp_path.rglob("*")]) == 1


@pytest.mark.parametrize("folder", ["missing", "file", "/proc/1"])
@pytest.mark.parametrize("address", ["local", "none"])
def test_a_temporary_folder_that_cannot_be_written(demo_source, tmp_path, folder, address):
    (tmp_path / "file").touch()
    words = ["--source", demo_source, "--captions", demo_source / CAPTIONS_FILE, *QUICK]
    words += ["--root", tmp_path / "root", "--address", address]
    answer = run_lrm("build", *words, TMPDIR=str(tmp_path / folder))
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), answer.err
    assert f"TMPDIR={tmp_path / folder}: cannot write" in answer.err
    assert not (tmp_path / "root").exists()


def test_a_local_ray_starts_with_a_long_temporary_folder(tmp_path, monkeypatch):
    """As under a batch system; the folder of its sockets is private, and removed at the end."""
    import ray

    long_folder = tmp_path / ("n" * MAX_RAY_FOLDER)
    long_folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(long_folder))
    with ray_session("local"):
        session = Path(ray._private.worker.global_worker.node.get_session_dir_path())
        private = session.parents[1]
        assert private.parent == short_folder()
        assert private.stat().st_mode & 0o077 == 0
        # Whatever Ray raises, a local one that does not start is no wrong input.
        with pytest.raises(WorkFailed, match="cannot start Ray"), ray_session("local"):
            pass
    assert not private.exists()
    assert not [*long_folder.iterdir()]


def test_the_doctor_names_a_temporary_folder_that_is_too_long_for_ray(tmp_path, monkeypatch):
    from pipelines.doctor.machine import check_ray_folder

    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert check_ray_folder().state == "ok"
    long_folder = tmp_path / ("n" * MAX_RAY_FOLDER)
    long_folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(long_folder))
    finding = check_ray_folder()
    assert finding.state == "note"
    assert f"a local Ray uses {short_folder()} instead" in finding.found
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    assert check_ray_folder().state == "missing"
