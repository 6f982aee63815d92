"""Which real models a benchmark takes from a folder in Objaverse's layout."""

import json
from collections.abc import Sequence
from pathlib import Path

__all__ = ["choose_models"]


def choose_models(
    source: Path, classes: Sequence[str] | None = None, count: int | None = None
) -> list[Path]:
    """GLB files below `source`, in the order of their names; of `classes` if labels.json is there.

    Raises SystemExit if there are none.
    """
    paths = sorted(source.rglob("*.glb"), key=lambda path: path.stem)
    labels = source / "labels.json"
    if classes is not None and labels.exists():
        known = {uid: label["class"] for uid, label in json.loads(labels.read_text()).items()}
        paths = [path for path in paths if known.get(path.stem) in classes]
    if not paths:
        raise SystemExit(f"{source}: no model of {', '.join(classes or ('any class',))}")
    return paths[:count]
