"""The bytes of a dataset: pictures, shards with their indexes, companion geometry."""
