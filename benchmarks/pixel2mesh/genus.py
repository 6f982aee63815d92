"""Count parts and handles of real objects, which Pixel2Mesh cannot represent.

`python -m benchmarks genus --root DATASET --snapshot ID` reads the companion geometry of the
objects, which needs a build with `--geometry`. It fills each object on a grid, and prints the
number of connected parts and of handles (holes like that of a ring) of the solid, so what is
smaller than a cube of the grid does not count. Pixel2Mesh deforms a sphere: one part, no handle.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from benchmarks.figures import Figure, add_figures, write_figures
from benchmarks.help_text import benchmark_parser
from benchmarks.proofs.fit_measures import sample_mesh
from core.quantities import counted
from dataset.format.geometry import read_geometry
from dataset.root import open_root
from dataset.snapshots.snapshot import open_snapshot

__all__ = ["main", "parts_and_handles"]

_POINTS_PER_SQUARE = 30
"""Points on the surface per square of the grid's sides, so that a surface has no gaps."""
_HALF_SIDE = 1.05
"""Half the side of the grid in world units."""


def main() -> None:
    """Print a line per object, and how many of them are like a sphere."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add("--root", required=True, help="folder or URI of a dataset")
    add("--snapshot", required=True, metavar="ID", help="snapshot in that dataset")
    add("--cubes", type=int, default=40, help="number of cubes along a side of the grid")
    add_figures(parser)
    options = parser.parse_args()
    root = open_root(options.root)
    samples = open_snapshot(root, options.snapshot).samples
    fitting = 0
    for sample in samples:
        if sample.geometry is None:
            raise SystemExit(
                f"genus: {sample.asset_id} has no geometry; build with lrm build --geometry"
            )
        surface = read_geometry(root, sample.geometry)
        count = _POINTS_PER_SQUARE * 6 * options.cubes**2
        points, _ = sample_mesh(surface.vertices, surface.faces, count, seed=0)
        parts, handles = parts_and_handles(_fill(points, options.cubes))
        fitting += (parts, handles) == (1, 0)
        counts = f"{counted(parts, 'part')}, {counted(handles, 'handle')}"
        print(f"{sample.asset_id}: {counts}", flush=True)
    print(f"{fitting} of {len(samples)} objects have one part and no handle")
    share = 100 * fitting / len(samples)
    write_figures(options.figures, [Figure("objects of one part without handle", share, "%")])


def parts_and_handles(solid: Bool[np.ndarray, "n n n"]) -> tuple[int, int]:
    """Return the numbers of parts and of handles of a solid of cubes without cavities.

    Cubes that touch at a corner are connected. The Euler characteristic (cubes, minus their faces,
    edges and corners with alternating signs) is the number of parts minus that of handles.
    """
    corners = _touching(solid, (0, 1, 2))
    edges = sum(_touching(solid, axes) for axes in ((0, 1), (0, 2), (1, 2)))
    faces = sum(_touching(solid, (axis,)) for axis in range(3))
    parts = int(ndimage.label(solid, np.ones((3, 3, 3)))[1])
    return parts, parts - (corners - edges + faces - int(solid.sum()))


def _touching(solid: Bool[np.ndarray, "n n n"], axes: tuple[int, ...]) -> int:
    """Return the number of corners, edges or faces of cubes: where cubes along `axes` meet."""
    cells = np.pad(solid, 1)
    for axis in axes:
        first, second = np.delete(cells, -1, axis), np.delete(cells, 0, axis)
        cells = first | second
    return int(cells.sum())


def _fill(points: Float[np.ndarray, "k 3"], cubes: int) -> Bool[np.ndarray, "n n n"]:
    """Return the cubes that have points, or from which no way leads outside."""
    index = np.floor((points / _HALF_SIDE + 1) / 2 * cubes).astype(int)
    surface = np.zeros((cubes,) * 3, dtype=bool)
    surface[tuple(index.clip(0, cubes - 1).T)] = True
    regions, _ = ndimage.label(np.pad(~surface, 1, constant_values=True))
    return (regions != regions[0, 0, 0])[1:-1, 1:-1, 1:-1]
