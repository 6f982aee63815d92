"""Missing libraries of Blender are reported with the command that installs them."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from render import system_libraries as system


@pytest.fixture
def without_two_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a machine that lacks libEGL and libSM."""

    def load(name: str) -> None:
        if name in ("libEGL.so.1", "libSM.so.6"):
            raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", load)


def test_the_packages_of_missing_libraries_are_named(without_two_libraries: None):
    assert sorted(system.missing_packages()) == ["libegl1", "libsm6"]


@pytest.mark.parametrize("user, sudo", [(0, False), (1000, True)])
def test_the_command_to_run_is_printed(
    without_two_libraries: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    user: int,
    sudo: bool,
):
    monkeypatch.setattr("os.geteuid", lambda: user)
    assert system.main() == 1
    output = capsys.readouterr().err
    assert "apt-get install" in output
    assert {"libegl1", "libsm6"} <= set(output.split())
    assert "libgl1" not in output.split()
    assert ("sudo " in output) == sudo


def test_nothing_is_printed_if_nothing_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    assert system.main() == 0
    assert capsys.readouterr() == ("", "")


def test_the_check_runs_before_anything_is_installed():
    script = Path(system.__file__)
    result = subprocess.run(
        [sys.executable, "-I", "-S", str(script)], capture_output=True, text=True
    )
    assert result.returncode in (0, 1)
    assert "Traceback" not in result.stderr
