"""Builds and trainings that are disturbed at random."""
