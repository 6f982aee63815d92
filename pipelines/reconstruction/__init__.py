"""Meshes of pictures, one after another: `lrm reconstruct` without its options."""
