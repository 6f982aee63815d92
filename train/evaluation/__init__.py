"""How good what a model gives is: the protocol of InstantMesh's section 4."""
