"""The start of a training run on a Ray cluster."""
