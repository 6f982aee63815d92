"""Builds and trainings with random faults."""
