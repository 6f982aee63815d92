"""Exports: snapshots of the kept samples, and folders in the layouts of other trainers."""
