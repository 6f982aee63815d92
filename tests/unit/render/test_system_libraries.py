"""What is missing for Blender is named together with the line that installs it."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from render import system_libraries as system


@pytest.fixture
def without_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that lacks libEGL and libSM."""

    def load(name: str) -> None:
        if name in ("libEGL.so.1", "libSM.so.6"):
            raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", load)


def test_missing_packages(without_two: None):
    assert sorted(system.missing_packages()) == ["libegl1", "libsm6"]


@pytest.mark.parametrize("user, sudo", [(0, False), (1000, True)])
def test_the_line_to_run(
    without_two: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    user: int,
    sudo: bool,
):
    monkeypatch.setattr("os.geteuid", lambda: user)
    assert system.main() == 1
    said = capsys.readouterr().err
    assert "apt-get install" in said
    assert {"libegl1", "libsm6"} <= set(said.split())
    assert "libgl1" not in said.split()
    assert ("sudo " in said) == sudo


def test_nothing_is_said_where_nothing_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    assert system.main() == 0
    assert capsys.readouterr() == ("", "")


def test_it_runs_before_anything_is_installed():
    script = Path(system.__file__)
    done = subprocess.run([sys.executable, "-I", "-S", str(script)], capture_output=True, text=True)
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr
