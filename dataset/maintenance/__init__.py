"""Checks, repair and compaction of shards."""
