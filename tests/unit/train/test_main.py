"""Wrong command lines of `python -m train`."""

from pathlib import Path

import pytest

from train.__main__ import main


def run_nerf(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Run the recipe nerf and return the exit code and the last line of standard error."""
    try:
        code = main(["nerf", *map(str, arguments)])
    except SystemExit as error:
        code = error.code
    return code, capsys.readouterr().err.strip().splitlines()[-1]


def test_bad_usage_ends_with_one_line(sphere_dataset, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    root, snapshot = sphere_dataset
    options = ["--root", root.uri, "--snapshot", snapshot, "--out", tmp_path, "--steps", 1]
    code, line = run_nerf(capsys, *options, "--batch-sise", 2)
    assert code == 2
    assert "did you mean --batch-size?" in line
    code, line = run_nerf(capsys, *options)
    assert code == 2
    assert "start this program with torchrun" in line
