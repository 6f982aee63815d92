"""Checkpoints that are written without a training."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from tests.support.tiny_recipe import TinyConfig
from train.checkpoints.manifest import FileEntry, Manifest, hash_file
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


def write_model(model: torch.nn.Module, recipe: str, config: dict[str, Any], out: Path) -> Path:
    """Write a run folder with one checkpoint as training does, without the optimizer; return it."""
    folder = out / "checkpoints" / "step-00000007"
    folder.mkdir(parents=True)
    file = folder / "mp_rank_00_model_states.pt"
    torch.save({"module": {f"model.{k}": v for k, v in model.state_dict().items()}}, file)
    manifest = Manifest(
        recipe=recipe,
        step=7,
        world_size=1,
        config=config,
        files={file.name: FileEntry(bytes=file.stat().st_size, sha256=hash_file(file))},
        versions={},
        extra=EXTRA,
    )
    (folder / "manifest.json").write_bytes(manifest.to_json())
    return out
