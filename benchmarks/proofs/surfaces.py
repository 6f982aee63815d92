"""Check the topology of FlexiCubes' meshes of random smooth fields.

`python -m benchmarks surfaces` prints the number of meshes that are closed, manifold and oriented,
with random weights and a deformed grid, and the seconds that the extraction of a sphere takes on a
grid of 128^3 cubes.
"""

import time
from collections import Counter

from benchmarks.figures import Figure, add_figures, write_figures
from benchmarks.help_text import benchmark_parser
from tests.support.topology import defects, random_surface, signed_volume
from train.models.surfaces.flexicubes import (
    find_surface,
    grid_vertices,
    shape_surface,
)

__all__ = ["main"]


def main() -> None:
    """Check the meshes, time the extraction, and print both."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--fields", type=int, default=1000, help="number of random fields")
    parser.add_argument("--resolution", type=int, default=16, help="cubes along a side of the grid")
    add_figures(parser)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    triangles, started = 0, time.monotonic()
    for seed in range(options.fields):
        surface = random_surface(seed, options.resolution, centred=seed % 2 == 0)
        triangles += len(surface.faces)
        counts.update(defects(surface.faces) or ["closed, manifold, oriented"])
        counts["inside out"] += signed_volume(surface) <= 0
    print(f"{options.fields} fields, {triangles} triangles, {time.monotonic() - started:.0f} s")
    for result, count in counts.items():
        print(f"{result}: {count}")
    sphere = grid_vertices(128, 2.1).norm(dim=1) - 0.9
    started = time.monotonic()
    surface = shape_surface(find_surface(sphere, 128), grid_vertices(128, 2.1), sphere)
    seconds = time.monotonic() - started
    print(f"sphere, 128^3 cubes, {len(surface.faces)} triangles: {seconds:.2f} s")
    perfect = counts["closed, manifold, oriented"] / options.fields
    write_figures(
        options.figures,
        [
            Figure("closed, manifold, oriented surfaces of random fields", 100 * perfect, "%"),
            Figure("surface of a sphere, 128^3 cubes", seconds, "s"),
        ],
    )
