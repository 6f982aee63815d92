"""Points spread evenly over the surface of the open object."""

import numpy as np

from render.blender.scene import SceneFailure, world_triangles

__all__ = ["sample_surface"]


def sample_surface(num_points: int, seed: int) -> np.ndarray:
    """Points (n, 3), float32, in the normalised frame; every part gets its share of the area.

    Raises SceneFailure (`empty`) if there is no area.
    """
    triangles = np.concatenate([found.reshape(-1, 3, 3) for found in world_triangles()])
    first, second = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    areas = np.linalg.norm(np.cross(first, second), axis=1).astype(np.float64)
    if not areas.sum() > 0:
        raise SceneFailure("empty", "the surface has no area")
    rng = np.random.default_rng(seed)
    edges = np.cumsum(areas)
    # Evenly spaced with one offset: fewer gaps than independent draws, and no part is missed.
    places = (np.arange(num_points) + rng.random()) / num_points * edges[-1]
    chosen = np.minimum(np.searchsorted(edges, places, side="right"), len(areas) - 1)
    u, v = rng.random((2, num_points, 1))
    outside = u + v > 1
    u, v = np.where(outside, 1 - u, u), np.where(outside, 1 - v, v)
    points = triangles[chosen, 0] + u * first[chosen] + v * second[chosen]
    return points.astype(np.float32)
