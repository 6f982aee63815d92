"""Thickness of a surface relative to its length: 0 for a sheet or a line."""

import numpy as np
from jaxtyping import Float

__all__ = ["thickness"]


def thickness(points: Float[np.ndarray, "n 3"]) -> float:
    """Return the smallest extent along a principal axis divided by the largest; 0 for one point.

    The principal axes are the eigenvectors of the covariance of the points.
    """
    centred = np.asarray(points, dtype=np.float64) - points.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    extents = np.ptp(centred @ axes, axis=0)
    longest = float(extents.max())
    return float(extents.min()) / longest if longest > 0 else 0.0
