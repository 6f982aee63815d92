"""Which objects are kept: the inspection of files, and functions from measurements to verdicts."""
