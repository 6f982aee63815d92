"""One object or several, on real models: what their labels say, whatever the mirror holds."""

import gzip
import json
from pathlib import Path

from filters.inspect_glb import GlbError, inspect_glb
from filters.islands import measure_islands
from filters.shape import MultiObjectConfig
from tests.support.facts import count_objects
from tests.support.surfaces import glb_surface

NUM_POINTS = 60_000
"""A third of what a build takes."""


def test_one_or_several(mirror: Path) -> None:
    """At least 90 % of the decided agree, and one single object in twenty goes at most."""
    labels = json.loads((mirror / "labels.json").read_text())
    paths = json.loads(gzip.decompress((mirror / "object-paths.json.gz").read_bytes()))
    answers, readable = [], 0
    for uid, label in labels.items():
        several = label["multi_object"] if label["class"] != "missing" else None
        if several is None:
            continue
        try:
            found = inspect_glb(mirror / paths[uid])
        except GlbError:
            continue
        # trimesh knows neither Draco nor GPU instances; Blender does, in production.
        needed = {"KHR_draco_mesh_compression", "EXT_mesh_gpu_instancing"}
        if needed & set(found.extensions_used):
            continue
        readable += 1
        points = glb_surface(mirror / paths[uid], NUM_POINTS)
        if points is not None:
            answer = count_objects(measure_islands(points), MultiObjectConfig())[0]
            answers.append((several, answer, label["name"]))
    assert len(answers) >= 0.8 * readable
    singles = [item for item in answers if not item[0]]
    decided = [item for item in answers if item[1] != "unsure"]
    wrong = [item for item in decided if item[0] is not (item[1] == "several")]
    assert len(wrong) <= 0.1 * len(decided), wrong
    assert sum(answer == "several" for _, answer, _ in singles) <= len(singles) / 20, wrong
    assert len(decided) >= 0.8 * len(answers)
