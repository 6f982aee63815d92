"""The numbers of the surface scores, without torch: the command line shows them as defaults."""

__all__ = ["NUM_POINTS", "THRESHOLD"]

NUM_POINTS = 16_000
"""Points on each surface, as in InstantMesh's evaluation."""
THRESHOLD = 0.2
"""Distance of the F-score, in the box [-1, 1]^3."""
