"""Damaged GLB files for the inspection and the Blender child."""
