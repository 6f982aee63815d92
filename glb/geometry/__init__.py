"""Evaluation of a file's geometry: nodes, instances, morph targets and skins become triangles."""
