"""Immutable lists of samples, their credits, and how long their shards are protected."""
