"""Protection around a refresh: the settings that a dataset remembers, and what changes redo."""
