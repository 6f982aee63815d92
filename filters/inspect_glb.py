"""The measurements of a GLB without Blender: counts, extensions and base-colour maps."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from core.config import Config, PositiveInt
from filters.base_colour_maps import BaseColourMap, base_colour_maps
from glb.document import Document
from glb.glb_error import GlbError
from glb.limits import GlbLimits
from glb.parse import read_glb

__all__ = ["GlbError", "InspectLimits", "Inspection", "inspect_glb"]


class InspectLimits(Config):
    """Limits on a GLB file, for the inspection and for the Blender child.

    Sizes in a GLB file have 32 bits.
    """

    max_file_bytes: Annotated[int, Field(gt=0, lt=2**32)] = GlbLimits.max_file_bytes
    """Maximum size of the file in bytes."""
    max_json_bytes: Annotated[int, Field(gt=0, lt=2**32)] = GlbLimits.max_json_bytes
    """Maximum size of its JSON chunk in bytes; parsed, it takes many times as much memory."""
    max_nodes: PositiveInt = GlbLimits.max_nodes
    """Maximum number of nodes plus GPU instances."""
    max_node_depth: Annotated[int, Field(gt=0, le=10_000)] = GlbLimits.max_node_depth
    """Maximum depth of the node tree in levels; deeper trees are damaged files."""
    max_triangles: PositiveInt = GlbLimits.max_triangles
    """Maximum number of drawn triangles, counted once per instance."""
    max_elements: PositiveInt = GlbLimits.max_elements
    """Maximum number of vertex attribute values and indices that the primitives refer to."""
    max_parts: PositiveInt = GlbLimits.max_parts
    """Maximum number of copies of primitives, plus that of morph targets, once per pose."""
    max_materials: PositiveInt = GlbLimits.max_materials
    """Maximum number of drawn materials."""
    max_image_pixels: PositiveInt = GlbLimits.max_image_pixels
    """Maximum number of pixels of a single image (width times height)."""
    max_total_pixels: Annotated[int, Field(gt=0, le=2**40)] = GlbLimits.max_total_pixels
    """Maximum number of pixels of all images together."""

    def glb_limits(self) -> GlbLimits:
        """Return the limits in the form that the parser takes."""
        return GlbLimits(**self.dump())


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


def inspect_glb(source: Path | str | bytes, limits: InspectLimits | None = None) -> Inspection:
    """Inspect a GLB file, given by its path or its bytes, in time linear in its size.

    Follows no URI and reads nothing outside the file. Raises GlbError, and no other error, for a
    file that cannot be rendered or exceeds a limit; OSError if a path cannot be read.
    """
    glb_limits = (limits or InspectLimits()).glb_limits()
    glb = read_glb(source, glb_limits)
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
        base_colour_maps=base_colour_maps(document, glb.drawn, glb_limits),
    )


def _names(document: Document, group: str) -> tuple[str, ...]:
    return tuple(sorted(set(document.json.get(group) or [])))
