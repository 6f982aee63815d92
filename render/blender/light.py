"""The light: a smooth environment of radiance around the object, and no lamps."""

from typing import Any

import bpy

__all__ = ["LIGHT_DIRECTION", "set_light"]

LIGHT_DIRECTION = (-0.36, -0.48, 0.8)
"""Unit vector towards the strongest light: above, in front of a glTF model, on its right."""


def set_light(scene: Any, strength: float, gradient: float) -> None:
    """Set the radiance `strength + gradient * (direction . LIGHT_DIRECTION)` in all directions.

    An unshaded white matt surface with normal n then has the colour
    `strength + 2/3 gradient * (n . LIGHT_DIRECTION)`. Cycles does not sample the environment as a
    lamp, which saves a third of the rays; the only noise left is that of occlusion.
    """
    world = bpy.data.worlds.new("light")
    scene.world = world
    world.use_nodes = True
    tree = world.node_tree
    background = tree.nodes["Background"]
    background.inputs["Color"].default_value = (1.0, 1.0, 1.0, 1.0)
    direction = tree.nodes.new("ShaderNodeTexCoord")
    slope = tree.nodes.new("ShaderNodeVectorMath")
    slope.operation = "DOT_PRODUCT"
    slope.inputs[1].default_value = [gradient * part for part in LIGHT_DIRECTION]
    radiance = tree.nodes.new("ShaderNodeMath")
    radiance.inputs[1].default_value = strength
    tree.links.new(direction.outputs["Generated"], slope.inputs[0])
    tree.links.new(slope.outputs["Value"], radiance.inputs[0])
    tree.links.new(radiance.outputs[0], background.inputs["Strength"])
    world.cycles.sampling_method = "NONE"
