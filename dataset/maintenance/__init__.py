"""Checking, repairing and compacting shards."""
