"""The choice of real models from a folder in Objaverse's layout."""

import json
from collections.abc import Sequence
from pathlib import Path

__all__ = ["choose_models"]


def choose_models(
    source: Path, classes: Sequence[str] | None = None, count: int | None = None
) -> list[Path]:
    """Return at most `count` GLB files below `source`, sorted by name.

    If the folder has a labels.json, only models of `classes` are returned; None means all classes.
    Raises SystemExit if there are none.
    """
    paths = sorted(source.rglob("*.glb"), key=lambda path: path.stem)
    labels = source / "labels.json"
    if classes is not None and labels.exists():
        class_of = {uid: label["class"] for uid, label in json.loads(labels.read_text()).items()}
        paths = [path for path in paths if class_of.get(path.stem) in classes]
    if not paths:
        raise SystemExit(f"{source}: no GLB file of class {', '.join(classes or ('any',))}")
    return paths[:count]
