"""Meshes from fields, and pictures of meshes: FlexiCubes and the rasterizers."""
