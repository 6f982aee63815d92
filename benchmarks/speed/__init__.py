"""Measurements of time, memory and bytes."""
