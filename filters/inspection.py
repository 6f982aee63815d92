"""The measurements of a GLB without Blender: counts, extensions and base-colour maps.

The build takes them in a confined process, which imports this module and no configuration.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from filters.base_colour_maps import BaseColourMap, base_colour_maps
from glb.document import Document
from glb.limits import GlbLimits
from glb.parse import read_glb

__all__ = ["Inspection", "inspect", "inspect_file"]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The measurements of one file that the catalog stores."""

    num_bytes: int
    num_nodes: int
    """Nodes of the default scene that a picture shows."""
    num_meshes: int
    """Distinct meshes of these nodes."""
    num_primitives: int
    """Distinct primitives with triangles that a picture shows."""
    num_triangles: int
    """Triangles that a picture shows, counted once per node and GPU instance: without hidden nodes,
    nodes without extent and materials without opacity."""
    num_images: int
    num_animations: int
    extensions_used: tuple[str, ...]
    extensions_required: tuple[str, ...]
    largest_image_pixels: int
    base_colour_maps: tuple[BaseColourMap, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = dataclasses.asdict(self)
        lists = ("extensions_used", "extensions_required", "base_colour_maps")
        return values | {name: list(values[name]) for name in lists}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the inspection that `to_dict` wrote."""
        names = {name: tuple(values[name]) for name in ("extensions_used", "extensions_required")}
        maps = tuple(BaseColourMap(**item) for item in values["base_colour_maps"])
        return cls(**values | names | {"base_colour_maps": maps})


def inspect(source: Path | str | bytes, limits: GlbLimits) -> Inspection:
    """Inspect a GLB file, given by its path or its bytes, in time linear in its size.

    Follows no URI and reads nothing outside the file. Raises GlbError, and no other error, for a
    file that cannot be rendered or exceeds a limit; OSError if a path cannot be read.
    """
    glb = read_glb(source, limits)
    document = glb.document
    meshes = [document.item("nodes", index).get("mesh") for index in glb.tree.shown]
    return Inspection(
        num_bytes=document.container.num_bytes,
        num_nodes=len(glb.tree.shown),
        num_meshes=len(set(meshes) - {None}),
        num_primitives=len(glb.drawn),
        num_triangles=sum(item.triangles * item.copies for item in glb.drawn),
        num_images=len(document.items("images")),
        num_animations=len(document.items("animations")),
        extensions_used=_names(document, "extensionsUsed"),
        extensions_required=_names(document, "extensionsRequired"),
        largest_image_pixels=glb.largest_image,
        base_colour_maps=base_colour_maps(document, glb.drawn, limits),
    )


def inspect_file(path: str, limits: dict[str, int]) -> tuple[dict[str, Any], bytes]:
    """Return the inspection of a file as plain values, for a caller in another process."""
    return inspect(path, GlbLimits(**limits)).to_dict(), b""


def _names(document: Document, group: str) -> tuple[str, ...]:
    return tuple(sorted(set(document.json.get(group) or [])))
