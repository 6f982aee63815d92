"""InstantMesh's large reconstruction model (LRM): encoder, triplanes, both renderers, losses."""
