"""The file formats of a dataset: encoded pictures, shards, shard indexes, companion geometry."""
