"""Points on the surface of a GLB, read with trimesh instead of Blender."""

from pathlib import Path

import numpy as np
import trimesh


def glb_surface(path: Path, num_points: int = 200_000) -> np.ndarray | None:
    """Return points of the surface in the normalised frame, z up, [num_points, 3].

    None means that trimesh cannot read the file.
    """
    try:
        mesh = trimesh.load_scene(path, skip_materials=True).to_geometry()
        points, _ = trimesh.sample.sample_surface(mesh, num_points, seed=0)
    except (ValueError, KeyError, IndexError, NotImplementedError, AttributeError, TypeError):
        return None
    low, high = mesh.bounds
    points = (points - (low + high) / 2) * (2 / (high - low).max())
    return (points * [1, 1, -1])[:, [0, 2, 1]].astype(np.float32)
