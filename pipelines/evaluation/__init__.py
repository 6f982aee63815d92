"""Evaluation of models and meshes on a snapshot or a folder of GLB files."""
