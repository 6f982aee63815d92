"""Inference: from pictures of an object to a mesh file, by query, six views, surface, texture."""
