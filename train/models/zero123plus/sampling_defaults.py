"""Published sampling settings, importable without torch for the command line's help."""

__all__ = ["GUIDANCE_SCALE", "NUM_STEPS", "VIEW_SIZE"]

NUM_STEPS = 75
"""Number of denoising steps."""
GUIDANCE_SCALE = 4.0
"""Scale of classifier-free guidance; 1 or less turns it off."""
VIEW_SIZE = 320
"""Side of a view in pixels."""
