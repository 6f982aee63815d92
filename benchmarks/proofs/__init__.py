"""Checks that results are right: fits, learning curves, comparisons of bytes."""
