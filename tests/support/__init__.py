"""Shared test inputs, small models, servers and runs: the only package that tests import."""
