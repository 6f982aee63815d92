"""The published settings of sampling, without torch: the command line shows them as defaults."""

__all__ = ["GUIDANCE_SCALE", "NUM_STEPS", "VIEW_SIZE"]

NUM_STEPS = 75
"""Denoising steps."""
GUIDANCE_SCALE = 4.0
"""Of classifier-free guidance; 1 or less means none."""
VIEW_SIZE = 320
"""Side of a view in pixels."""
