"""Which checkpoint counts, and which are kept."""

import json
from pathlib import Path

import pytest

from dataset.errors import BadInput
from train.checkpoint import Checkpoints


def write(out: Path, step: int, config: dict | None = None, world: int = 1) -> Path:
    """A whole checkpoint as it lies on disk, with one small file."""
    folder = out / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "weights.pt").write_bytes(b"abc")
    files = {"weights.pt": {"bytes": 3, "sha256": ABC}}
    manifest = {"format": 1, "step": step, "world": world, "config": config or {}, "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def steps(out: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (out / "checkpoints").iterdir())


def test_the_newest_whole_one_counts(tmp_path):
    for step in (1, 2, 3, 4):
        write(tmp_path, step)
    folder = tmp_path / "checkpoints"
    (folder / "step-00000004" / "manifest.json").unlink()
    (folder / "step-00000003" / "weights.pt").write_bytes(b"abd")
    found = Checkpoints(tmp_path, keep=3).latest()
    assert found is not None
    assert found.step == 2


def test_nothing_is_found_in_an_empty_folder(tmp_path):
    assert Checkpoints(tmp_path, keep=1).latest() is None


def test_the_newest_are_kept_and_an_abandoned_future_goes(tmp_path):
    """A run that went back behind a damaged checkpoint must not lose what it writes now."""
    for step in (1, 2, 3, 9):
        write(tmp_path, step)
    torn = write(tmp_path, 4)
    (torn / "manifest.json").unlink()
    Checkpoints(tmp_path, keep=2)._remove_old(5 - 2)
    assert steps(tmp_path) == [2, 3]


@pytest.mark.parametrize(
    ("config", "world", "message"),
    [
        ({"seed": 1}, 1, r"seed \(0 -> 1\)"),
        ({"seed": 0}, 2, "written by 1 workers, not 2"),
    ],
)
def test_another_run_is_refused(tmp_path, config, world, message):
    write(tmp_path, 2, {"seed": 0, "steps": 5})
    with pytest.raises(BadInput, match=message):
        Checkpoints(tmp_path, keep=1).check(config, world)


def test_harmless_changes_are_not_refused(tmp_path):
    write(tmp_path, 2, {"seed": 0, "steps": 5})
    found = Checkpoints(tmp_path, keep=1).check({"seed": 0, "steps": 50}, 1)
    assert found is not None
    assert found.step == 2
