"""Filters: the inspection of GLB files, and pure functions from measurements to verdicts."""
