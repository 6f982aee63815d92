"""Opacity of materials: unchanged for colours, rounded to 0 or 1 for depth and normals.

At a half-transparent surface Cycles decides at random for each ray whether it passes. The average
of many rays is the right colour, but depth and normals come from one ray, and would be dotted.
"""

from collections.abc import Iterator
from typing import Any

from render.blender.shaders import node_trees

__all__ = ["insert_opacity_nodes", "round_opacity"]

_NODE_NAME = "opacity rounding"


def insert_opacity_nodes() -> None:
    """Insert a node before every opacity input of the materials; `round_opacity` switches them."""
    for tree in node_trees():
        for socket in [socket for node in tree.nodes for socket in _opacities(node)]:
            _insert(tree, socket)
    round_opacity(False)


def round_opacity(rounded: bool) -> None:
    """Make surfaces fully opaque if their opacity is above 0.5, otherwise invisible; or undo it."""
    for tree in node_trees():
        for node in tree.nodes:
            if node.name.startswith(_NODE_NAME):
                node.operation = "GREATER_THAN" if rounded else "MULTIPLY"
                node.inputs[1].default_value = 0.5 if rounded else 1.0


def _opacities(node: Any) -> Iterator[Any]:
    """Yield the inputs of a node that set the opacity, unless they are constantly 1."""
    if node.type == "BSDF_PRINCIPLED":
        socket = node.inputs["Alpha"]
        if socket.is_linked or socket.default_value < 1:
            yield socket
    if node.type == "MIX_SHADER" and any(
        link.from_node.type == "BSDF_TRANSPARENT" for item in node.inputs[1:] for link in item.links
    ):
        yield node.inputs["Fac"]


def _insert(tree: Any, socket: Any) -> None:
    node = tree.nodes.new("ShaderNodeMath")
    node.name = _NODE_NAME
    if socket.is_linked:
        tree.links.new(socket.links[0].from_socket, node.inputs[0])
    else:
        node.inputs[0].default_value = socket.default_value
    tree.links.new(node.outputs[0], socket)
