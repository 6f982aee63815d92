"""Inputs, small models, servers and runs: all of `tests` that tests and benchmarks import."""
