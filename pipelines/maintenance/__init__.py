"""Commands that look after a dataset: verify, compact, remove, retry."""
