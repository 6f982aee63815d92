"""Which objects are kept: pure functions from measurements to verdicts."""
