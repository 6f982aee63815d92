"""InstantMesh's large reconstruction model: encoder, triplanes, both renderers, losses."""
