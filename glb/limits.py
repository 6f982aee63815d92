"""Limits on the resources that one GLB file may use."""

from dataclasses import dataclass

__all__ = ["GlbLimits"]


@dataclass(frozen=True, kw_only=True)
class GlbLimits:
    """Limits of a GLB file; a file that exceeds one fails as `too_large`."""

    max_file_bytes: int = 1 << 29
    """Bytes of the whole file."""
    max_json_bytes: int = 1 << 25
    """Bytes of the JSON chunk; parsed JSON takes many times as much memory."""
    max_nodes: int = 20_000
    """Nodes and GPU instances together: each is a step of the evaluation."""
    max_node_depth: int = 256
    """Levels of the node tree. Deeper trees are damaged files; each level takes a step."""
    max_triangles: int = 5_000_000
    """Drawn triangles, counted once per instance."""
    max_elements: int = 50_000_000
    """Vertex attribute values and indices that the primitives refer to."""
    max_parts: int = 500_000
    """Copies of primitives, and five times their morph targets, once per pose: steps in Python."""
    max_materials: int = 5_000
    """Drawn materials: the time of Blender's importer grows with the square of their number."""
    max_image_pixels: int = 8192 * 8192
    """Pixels of a single image."""
    max_total_pixels: int = 4 * 8192 * 8192
    """Pixels of all images together."""
