"""The base colour of the open object at points of its surface, computed without the renderer.

The pictures are compared with it (render.darkness), so it comes from the file alone: factors,
texels and vertex colours.
"""

import time
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from glb.document import Item
from glb.geometry.surface import Surface
from glb.shown_materials import UNLIT, base_colour, least_opacity
from render.blender.scene import OpenScene
from render.blender.shaders import has_linear_pixels, image_pixels
from render.blender.surface_points import Places, sample_places
from render.blender.surfaces.alpha_texture import texture_coordinates
from render.blender.surfaces.texels import linear_from_srgb, nearest_texels
from render.job import RenderRequest

__all__ = ["write_base_colours"]

_NUM_POINTS = 20_000
_OPAQUE = 1 - 0.5 / 255
"""Opacity that 8 bits show as 1."""
_TRANSMISSION = "KHR_materials_transmission"


def write_base_colours(opened: OpenScene, request: RenderRequest) -> float:
    """Write base_colours.npz: points of the surface, their base colours, and which are lit.

    Returns the duration in seconds.

    The colours are linear, and 0 where the material lets light pass: the picture then shows what is
    behind it, too.
    """
    started = time.monotonic()
    surface, materials = opened.body, opened.materials
    places = sample_places(surface, _NUM_POINTS, request.seed)
    colours = _colours(surface, places, opened)
    used = surface.materials[places.faces]
    opaque = np.ones(_NUM_POINTS, dtype=bool)
    lit = np.ones(_NUM_POINTS, dtype=bool)
    for number in np.unique(used):
        own, material = used == number, materials[int(number)]
        opaque[own] = _is_opaque(material, colours[own, 3])
        lit[own] = UNLIT not in material["extensions"]
    points = places.mix(surface.triangles[places.faces])
    np.savez(
        Path(request.out) / "base_colours.npz",
        points=points.astype(np.float32),
        colours=np.where(opaque[:, None], colours[:, :3].clip(0, 1), 0).astype(np.float32),
        lit=lit,
    )
    return time.monotonic() - started


def _colours(surface: Surface, places: Places, opened: OpenScene) -> Float64[np.ndarray, "n 4"]:
    """Return factor * texel * COLOR_0 at places of the surface, as linear RGBA."""
    if surface.colours is None:
        colours = np.ones((len(places.faces), 4))
    else:
        colours = places.mix(surface.colours[surface.faces[places.faces]])
    used = surface.materials[places.faces]
    textured: dict[int, list[int]] = {}
    for number in np.unique(used).tolist():
        colours[used == number] *= base_colour(opened.materials[number])[0]
        if number in opened.base_colours:
            textured.setdefault(opened.base_colours[number].image, []).append(number)
    for image, numbers in textured.items():
        pixels = image_pixels(image)
        for number in numbers:
            use, own = opened.base_colours[number], used == number
            corners = texture_coordinates(surface, use.slot, places.faces[own])
            coordinates = places.select(own).mix(corners)
            texels = nearest_texels(pixels, coordinates, use.wrap_s, use.wrap_t)
            if not has_linear_pixels(image):
                texels[:, :3] = linear_from_srgb(texels[:, :3])
            colours[own] *= texels
    return colours


def _is_opaque(material: Item, alpha: Float64[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Return which points of a material with some alpha let no light pass."""
    transmission = material["extensions"].get(_TRANSMISSION, {}).get("transmissionFactor", 0)
    if transmission > 0:
        return np.zeros(len(alpha), dtype=bool)
    if least_opacity(material) is None:
        return np.ones(len(alpha), dtype=bool)
    return alpha >= _OPAQUE
