"""Opacity as it is for colour, or rounded for geometry.

Cycles lets each ray pass a half-transparent surface or not by chance. Averaged, that is a colour;
but depth and normals come from one ray, and would be a screen of dots.
"""

from collections.abc import Iterator
from typing import Any

from render.blender.shaders import node_trees

__all__ = ["insert_gates", "round_opacity"]

_GATE = "opacity gate"


def insert_gates() -> None:
    """Put a node, which changes nothing yet, before every opacity of the scene's materials."""
    for tree in node_trees():
        for socket in [socket for node in tree.nodes for socket in _opacities(node)]:
            _insert(tree, socket)
    round_opacity(False)


def round_opacity(rounded: bool) -> None:
    """Make surfaces that are more than half opaque wholly opaque and drop others, or undo it."""
    for tree in node_trees():
        for node in tree.nodes:
            if node.name.startswith(_GATE):
                node.operation = "GREATER_THAN" if rounded else "MULTIPLY"
                node.inputs[1].default_value = 0.5 if rounded else 1.0


def _opacities(node: Any) -> Iterator[Any]:
    """The inputs of a node that say how opaque a surface is, unless they say: wholly."""
    if node.type == "BSDF_PRINCIPLED":
        socket = node.inputs["Alpha"]
        if socket.is_linked or socket.default_value < 1:
            yield socket
    if node.type == "MIX_SHADER" and any(
        link.from_node.type == "BSDF_TRANSPARENT" for item in node.inputs[1:] for link in item.links
    ):
        yield node.inputs["Fac"]


def _insert(tree: Any, socket: Any) -> None:
    gate = tree.nodes.new("ShaderNodeMath")
    gate.name = _GATE
    if socket.is_linked:
        tree.links.new(socket.links[0].from_socket, gate.inputs[0])
    else:
        gate.inputs[0].default_value = socket.default_value
    tree.links.new(gate.outputs[0], socket)
