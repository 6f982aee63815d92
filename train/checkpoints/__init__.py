"""Checkpoints and weights: written, verified, uploaded, loaded."""
