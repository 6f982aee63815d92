"""Evaluation of models and meshes on the objects of a snapshot."""
