"""Real models of a mirror, chosen by class."""

import json
from pathlib import Path

import pytest


def smallest_models(mirror: Path, kind: str, count: int) -> list[Path]:
    """Return the smallest GLB files of a class; skip the test if there are none."""
    labels = json.loads((mirror / "labels.json").read_text())
    uids = {uid for uid, label in labels.items() if label["class"] == kind}
    files = [path for path in mirror.glob("glbs/*/*.glb") if path.stem in uids]
    if not files:
        pytest.skip(f"the mirror has no model of class {kind!r}")
    return sorted(files, key=lambda path: path.stat().st_size)[:count]
