"""Benchmarks of Pixel2Mesh."""
