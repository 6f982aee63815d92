"""The multi-object filter on labelled real models of the mirror."""

import gzip
import json
from pathlib import Path

from filters.inspect_glb import GlbError, inspect_glb
from filters.islands import measure_islands
from filters.shape import MultiObjectConfig
from tests.support.facts import count_objects
from tests.support.surfaces import glb_surface

NUM_POINTS = 60_000
"""Points per model: a third of the number in a build."""


def test_the_multi_object_filter_agrees_with_the_labels(mirror: Path) -> None:
    """At least 90 % of the decisions agree; at most 1 in 20 single objects is dropped."""
    labels = json.loads((mirror / "labels.json").read_text())
    paths = json.loads(gzip.decompress((mirror / "object-paths.json.gz").read_bytes()))
    decisions, readable = [], 0
    for uid, label in labels.items():
        multi_object = label["multi_object"] if label["class"] != "missing" else None
        if multi_object is None:
            continue
        try:
            inspection = inspect_glb(mirror / paths[uid])
        except GlbError:
            continue
        # trimesh, unlike Blender in a build, supports neither Draco nor GPU instances.
        unsupported = {"KHR_draco_mesh_compression", "EXT_mesh_gpu_instancing"}
        if unsupported & set(inspection.extensions_used):
            continue
        readable += 1
        points = glb_surface(mirror / paths[uid], NUM_POINTS)
        if points is not None:
            decision = count_objects(measure_islands(points), MultiObjectConfig())[0]
            decisions.append((multi_object, decision, label["name"]))
    assert len(decisions) >= 0.8 * readable
    singles = [item for item in decisions if not item[0]]
    decided = [item for item in decisions if item[1] != "unsure"]
    wrong = [item for item in decided if item[0] is not (item[1] == "several")]
    assert len(wrong) <= 0.1 * len(decided), wrong
    assert sum(decision == "several" for _, decision, _ in singles) <= len(singles) / 20, wrong
    assert len(decided) >= 0.8 * len(decisions)
