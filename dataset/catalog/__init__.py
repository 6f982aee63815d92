"""The log of events, and the newest event of every object and stage."""
