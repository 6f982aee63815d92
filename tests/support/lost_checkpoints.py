"""Checkpoints of a short run that loses power, read from what the disk may hold."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from tests.support.disk_losses import Tree, disks_after_loss
from tests.support.durable_files import CrashPoint, DiskRecorder
from tests.support.tiny_recipe import train_configs
from train.checkpoints.manifest import MANIFEST

__all__ = ["checkpoints_after_losses"]


def checkpoints_after_losses(config: dict[str, Any]) -> list[list[tuple[list[str], list[str]]]]:
    """Train, and return for every step the checkpoints on each disk that a loss may leave.

    They are the names of those that are whole, and of those with a manifest that are not.
    """
    out = Path(config["out"])
    out.mkdir(parents=True)
    points: list[CrashPoint] = []
    with DiskRecorder(out, points.append) as recorder:
        train_configs([config])
        recorder.point("the end")
    return [
        [_checkpoints(tree) for _, tree in disks_after_loss(point, seed=0, num_random=1)]
        for point in points
    ]


def _checkpoints(tree: Tree) -> tuple[list[str], list[str]]:
    whole, damaged = [], []
    for path, data in sorted(tree.items()):
        folder = path.removesuffix(f"/{MANIFEST}")
        if folder != path and data:
            files = json.loads(data)["files"]
            is_whole = all(
                _sha256(tree.get(f"{folder}/{name}")) == entry["sha256"]
                for name, entry in files.items()
            )
            (whole if is_whole else damaged).append(folder)
    return whole, damaged


@functools.cache
def _sha256(data: bytes | None) -> str:
    return hashlib.sha256(data or b"").hexdigest()
