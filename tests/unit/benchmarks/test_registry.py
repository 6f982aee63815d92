"""Benchmarks are listed and started by name."""

import importlib.util

import pytest

from benchmarks.__main__ import main, purpose
from benchmarks.registry import BENCHMARKS
from tests.support.paths import REPOSITORY


def test_without_a_name_all_are_listed(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    for name in BENCHMARKS:
        assert f"  {name} " in shown
        assert 20 < len(purpose(name)) < 80


def test_every_file_with_a_main_is_registered():
    """The exception is a process that the benchmark `render` starts for each object."""
    files = {
        path
        for path in (REPOSITORY / "benchmarks").rglob("*.py")
        if "\ndef main(" in path.read_text() and path.name != "__main__.py"
    }
    registered = {importlib.util.find_spec(module).origin for module in BENCHMARKS.values()}
    assert {path.name for path in files if str(path) not in registered} == {"baseline_render.py"}


@pytest.mark.parametrize(
    ("word", "hint"), [("lodaer", "did you mean loader?"), ("x", "lists them")]
)
def test_a_wrong_name_is_one_line(word, hint, capsys):
    assert main([word]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert word in line
    assert hint in line
