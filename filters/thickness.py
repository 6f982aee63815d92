"""How thin a surface is beside its length: 0 for a sheet or a line."""

import numpy as np
from jaxtyping import Float

__all__ = ["thickness"]


def thickness(points: Float[np.ndarray, "n 3"]) -> float:
    """The extent along the thinnest principal axis by that along the longest; 0 for one point.

    The principal axes are those of the covariance of the points.
    """
    centred = np.asarray(points, dtype=np.float64) - points.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    extents = np.ptp(centred @ axes, axis=0)
    longest = float(extents.max())
    return float(extents.min()) / longest if longest > 0 else 0.0
