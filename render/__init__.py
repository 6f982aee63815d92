"""Rendering of GLB files to views; Blender is imported in render.blender only."""
