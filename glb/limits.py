"""Limits on the resources that one GLB file may use."""

from dataclasses import dataclass

__all__ = ["GlbLimits"]


@dataclass(frozen=True, kw_only=True)
class GlbLimits:
    """The limits of a GLB file, with their defaults."""

    max_file_bytes: int = 1 << 29
    """The whole file."""
    max_json_bytes: int = 1 << 25
    """Its JSON, which takes many times as much memory once it is parsed."""
    max_nodes: int = 20_000
    """Nodes and GPU instances together: Blender makes an object of each."""
    max_node_depth: int = 256
    """Levels of the node tree: the importer recurses once per level."""
    max_triangles: int = 5_000_000
    """Triangles drawn, each instance counted."""
    max_elements: int = 50_000_000
    """Vertex attributes and indices that the primitives read."""
    max_image_pixels: int = 8192 * 8192
    """Pixels of a single image."""
    max_total_pixels: int = 4 * 8192 * 8192
    """Pixels of all images together."""
