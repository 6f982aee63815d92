"""From a GLB file to views; Blender itself lives in render.blender and nowhere else."""
