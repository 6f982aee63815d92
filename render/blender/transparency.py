"""Places where a surface lets rays pass, besides its opacity: culled backs, coincident layers."""

from collections.abc import Iterable
from typing import Any

from render.blender.shaders import node_trees

__all__ = ["MIN_RAY", "cull_backs", "pass_short_rays"]

MIN_RAY = 1e-4
"""Length of a ray, in world units, below which it hits another layer of the surface that it leaves.
Half the distance of layers that are set apart (`surfaces.coincident`)."""


def pass_short_rays() -> None:
    """Make all materials transparent for rays that have just left a surface.

    Where two triangles lie in one place, or overlap in one plane, light that leaves one of them
    would hit the other at once, and both would be black.
    """
    for tree in node_trees():
        path = tree.nodes.new("ShaderNodeLightPath")
        short = tree.nodes.new("ShaderNodeMath")
        short.operation = "LESS_THAN"
        short.inputs[1].default_value = MIN_RAY
        tree.links.new(path.outputs["Ray Length"], short.inputs[0])
        _let_pass(tree, short.outputs[0])


def cull_backs(objects: Iterable[Any]) -> None:
    """Show objects only to the camera, and only their front faces.

    Their materials are copied, so that other objects with the same material stay as they are.
    """
    for item in objects:
        for slot in item.material_slots:
            slot.material = slot.material.copy()
            tree = slot.material.node_tree
            geometry = tree.nodes.new("ShaderNodeNewGeometry")
            _let_pass(tree, geometry.outputs["Backfacing"])
        for kind in ("diffuse", "glossy", "transmission", "shadow", "volume_scatter"):
            setattr(item, f"visible_{kind}", False)


def _let_pass(tree: Any, where: Any) -> None:
    """Mix the surface of a material with a transparent one, by a socket that is 0 or 1."""
    output = tree.get_output_node("CYCLES")
    if output is None or not output.inputs["Surface"].is_linked:
        return
    mix = tree.nodes.new("ShaderNodeMixShader")
    transparent = tree.nodes.new("ShaderNodeBsdfTransparent")
    tree.links.new(where, mix.inputs["Fac"])
    tree.links.new(output.inputs["Surface"].links[0].from_socket, mix.inputs[1])
    tree.links.new(transparent.outputs[0], mix.inputs[2])
    tree.links.new(mix.outputs[0], output.inputs["Surface"])
