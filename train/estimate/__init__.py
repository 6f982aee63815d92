"""Estimates of a run before it starts: parameters, memory, FLOPs, time."""
