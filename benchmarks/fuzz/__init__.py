"""Spoilt files against the inspection and the Blender child."""
