"""Checkpoints that are written without a training."""

import hashlib
from pathlib import Path

from tests.support.tiny_recipe import TinyConfig
from train.checkpoints.manifest import FileEntry, Manifest
from train.resilience.damaged_samples import FaultConfig, FaultCounter
from train.resilience.step_guard import GuardConfig, StepGuard

EXTRA = {"guard": StepGuard(GuardConfig()).dump(), "faults": FaultCounter(FaultConfig(), 1).dump()}
"""State of the training loop before its first step."""
SETTINGS = {"root": "/data", "snapshot": "abc"}


def settings(out: Path, **more) -> TinyConfig:
    """Return the configuration of a run in the folder `out`."""
    return TinyConfig.load(SETTINGS | {"out": str(out)} | more)


def write(out: Path, step: int, world: int = 1, **config) -> Path:
    """Write a complete checkpoint with one small file; return its folder."""
    folder = out / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "weights.pt").write_bytes(b"abc")
    manifest = Manifest(
        step=step,
        world_size=world,
        config=settings(out, **config).dump(),
        files={"weights.pt": FileEntry(bytes=3, sha256=hashlib.sha256(b"abc").hexdigest())},
        versions={},
        extra=EXTRA,
    )
    (folder / "manifest.json").write_bytes(manifest.to_json())
    return folder
