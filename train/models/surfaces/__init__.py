"""Extraction of meshes from fields (FlexiCubes), and rasterizers that render meshes."""
