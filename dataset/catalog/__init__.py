"""The catalog: the log of events, and the last event of every object and stage."""
