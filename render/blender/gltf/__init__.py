"""Preparation of the GLB that Blender imports: checked, and reduced to what is visible."""
