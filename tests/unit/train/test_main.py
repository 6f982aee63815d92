"""`python -m train` with words that do not fit."""

from pathlib import Path

import pytest

from train.__main__ import main


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """The exit code, and the last line of standard error."""
    try:
        code = main(["nerf", *map(str, words)])
    except SystemExit as end:
        code = end.code
    return code, capsys.readouterr().err.strip().splitlines()[-1]


def test_bad_words_end_with_one_line(sphere_dataset, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    root, snapshot = sphere_dataset
    run = ["--root", root.uri, "--snapshot", snapshot, "--out", tmp_path, "--steps", 1]
    code, line = answer(capsys, *run, "--batch-sise", 2)
    assert code == 2
    assert "did you mean --batch-size?" in line
    code, line = answer(capsys, *run)
    assert code == 2
    assert "start this program with torchrun" in line
