"""Checkpoints and initial weights: writing, verification, upload, loading."""
