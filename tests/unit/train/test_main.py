"""Wrong command lines of `python -m train`."""

import errno
import tempfile
from pathlib import Path

import pytest
import torch

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
    for name in (None, "WORLD_SIZE", "RANK"):
        if name is not None:
            monkeypatch.setenv(name, "1")
        code, line = run_nerf(capsys, *options)
        assert code == 2
        assert "start this program with torchrun" in line


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/run"), "free space"),
        (MemoryError(), "not enough memory"),
        (
            RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"),
            "another rank",
        ),
        (RuntimeError("a bug\nwith lines"), "internal error: RuntimeError: a bug"),
        (KeyError("name"), "internal error: KeyError"),
    ],
)
def test_every_error_ends_with_one_line(
    error, part, sphere_dataset, tmp_path: Path, capsys, monkeypatch
):
    root, snapshot = sphere_dataset
    for name, value in {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # a bug leaves its traceback there

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(torch.distributed, "init_process_group", fail)
    options = ["--root", root.uri, "--snapshot", snapshot, "--out", tmp_path / "run", "--steps", 1]
    assert main(["nerf", *map(str, options), "--loss.lpips", "0"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train nerf: error: ")
    assert part in line
