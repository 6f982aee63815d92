"""What a GLB holds, told without Blender: counts, extensions and base-colour maps."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from filters.glb import GlbRefused, InspectLimits, read_glb
from filters.glb_images import BaseColourMap, base_colour_maps, largest_image
from filters.glb_scene import draw_scene

__all__ = ["GlbRefused", "InspectLimits", "Inspection", "inspect_glb"]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The measurements of one file that the catalog stores."""

    num_bytes: int
    num_nodes: int
    """In the default scene."""
    num_meshes: int
    """Different meshes that the default scene draws."""
    num_primitives: int
    """Different primitives with triangles that it draws."""
    num_triangles: int
    """As drawn: every node and GPU instance counted."""
    num_images: int
    num_animations: int
    extensions_used: tuple[str, ...]
    extensions_required: tuple[str, ...]
    largest_image_pixels: int
    base_colour_maps: tuple[BaseColourMap, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = dataclasses.asdict(self)
        lists = ("extensions_used", "extensions_required", "base_colour_maps")
        return values | {name: list(values[name]) for name in lists}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inspection that `to_dict` wrote."""
        names = {name: tuple(values[name]) for name in ("extensions_used", "extensions_required")}
        maps = tuple(BaseColourMap(**item) for item in values["base_colour_maps"])
        return cls(**values | names | {"base_colour_maps": maps})


def inspect_glb(source: Path | str | bytes, limits: InspectLimits | None = None) -> Inspection:
    """Inspect a GLB file, given by its path or its bytes, in time linear in its size.

    Follows no URI and reads nothing outside the file. Raises GlbRefused, and nothing else, for a
    file that cannot or may not be rendered; OSError if a path cannot be read.
    """
    limits = InspectLimits() if limits is None else limits
    glb = read_glb(source, limits)
    scene = draw_scene(glb, limits)
    largest = largest_image(glb, limits)
    return Inspection(
        num_bytes=glb.num_bytes,
        num_nodes=scene.nodes,
        num_meshes=scene.meshes,
        num_primitives=len(scene.drawn),
        num_triangles=scene.triangles,
        num_images=len(glb.gltf.images or []),
        num_animations=len(glb.gltf.animations or []),
        extensions_used=tuple(sorted(set(glb.gltf.extensions_used or []))),
        extensions_required=tuple(sorted(set(glb.gltf.extensions_required or []))),
        largest_image_pixels=largest,
        base_colour_maps=base_colour_maps(glb, scene.drawn, limits),
    )
