"""Protection of a dataset: its remembered settings, and what a build would lose or redo."""
