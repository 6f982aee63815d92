"""Confined child processes, which do the work on files of strangers."""
