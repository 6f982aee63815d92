"""Defaults of the surface metrics, importable without torch for the command line's help."""

__all__ = ["NUM_POINTS", "THRESHOLD"]

NUM_POINTS = 16_000
"""Number of points sampled on each surface, as in InstantMesh's evaluation."""
THRESHOLD = 0.2
"""Distance threshold of the F-score in the box [-1, 1]^3, as in InstantMesh's evaluation."""
