"""The topology of what FlexiCubes extracts from random smooth fields.

`python -m benchmarks surfaces --fields 1000` prints how many meshes are closed, manifold and
oriented, with random weights and a deformed grid, and what extraction costs.
"""

import argparse
import time
from collections import Counter

from benchmarks.figures import Figure, add_figures, write_figures
from tests.support.topology import defects, random_surface, signed_volume
from train.models.surfaces.flexicubes import (
    find_surface,
    grid_vertices,
    shape_surface,
)

__all__ = ["main"]


def main() -> None:
    """Check and time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fields", type=int, default=1000)
    parser.add_argument("--resolution", type=int, default=16)
    add_figures(parser)
    options = parser.parse_args()
    found: Counter[str] = Counter()
    triangles, started = 0, time.monotonic()
    for seed in range(options.fields):
        surface = random_surface(seed, options.resolution, centred=seed % 2 == 0)
        triangles += len(surface.faces)
        found.update(defects(surface.faces) or ["closed, manifold, oriented"])
        found["inside out"] += signed_volume(surface) <= 0
    print(f"{options.fields} fields, {triangles} triangles, {time.monotonic() - started:.0f} s")
    for what, count in found.items():
        print(f"{what}: {count}")
    sphere = grid_vertices(128, 2.1).norm(dim=1) - 0.9
    started = time.monotonic()
    surface = shape_surface(find_surface(sphere, 128), grid_vertices(128, 2.1), sphere)
    seconds = time.monotonic() - started
    print(f"sphere, 128^3 cubes, {len(surface.faces)} triangles: {seconds:.2f} s")
    whole = found["closed, manifold, oriented"] / options.fields
    write_figures(
        options.figures,
        [
            Figure("closed, manifold, oriented surfaces of random fields", 100 * whole, "%"),
            Figure("surface of a sphere, 128^3 cubes", seconds, "s"),
        ],
    )
