"""Evaluation of trained models by the protocol of InstantMesh (arXiv 2404.07191, section 4)."""
