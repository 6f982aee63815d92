"""Hidden nodes may be anything, and what moves visible meshes is checked."""

from typing import Any

import numpy as np
import pytest

from filters.inspect_glb import inspect_glb
from glb.glb_error import GlbError
from glb.limits import GlbLimits
from glb.parse import Glb, read_glb
from glb.placements import world_placements
from tests.support.gltf_builder import GltfBuilder
from tests.support.small_glbs import changed_square, pack_scene

HIDDEN: dict[str, Any] = {"KHR_node_visibility": {"visible": False}}
VISIBLE = [{"mesh": 0}]


def scene(nodes: list[dict[str, Any]], listed: list[int]) -> bytes:
    return changed_square(nodes=nodes, scenes=[{"nodes": listed}])


@pytest.mark.parametrize("lod", [{}, {"MSFT_lod": {"ids": "none"}}], ids=["plain", "invalid"])
@pytest.mark.parametrize(
    "below",
    [
        [{"children": [2, 2]}, {}],
        [{"children": [2, 3]}, {"children": [3]}, {}],
        [{"children": [2]}, {"children": [3]}, {"children": [2]}],
        [{"children": [999, -1, True, "a"]}],
        [{"children": [1]}],
        [{"children": [index]} for index in range(2, 400)],
        [{"children": list(range(2, 30))}, *[{"mesh": 7, "scale": "large"}] * 28],
    ],
    ids=["twice", "two parents", "cycle", "no nodes", "itself", "deep", "many"],
)
def test_below_a_hidden_node_may_be_anything(
    below: list[dict[str, Any]], lod: dict[str, Any]
) -> None:
    """It counts for no limit, and is not stored as a part of the scene."""
    nodes = [*VISIBLE, below[0] | {"extensions": HIDDEN | lod}, *below[1:]]
    data = scene(nodes, [0, 1])
    glb = read_glb(data, GlbLimits(max_nodes=10))
    assert glb.tree.shown == [0]
    assert glb.document.items("nodes")[1:] == [{}] * (len(nodes) - 1)
    assert (inspect_glb(data).num_nodes, inspect_glb(data).num_meshes) == (1, 1)


def test_a_visible_node_with_a_hidden_parent_too_is_malformed() -> None:
    """Where it is and whether it is visible depend on the parent."""
    nodes = [{"children": [2]}, {"extensions": HIDDEN, "children": [2]}, {"mesh": 0}]
    with pytest.raises(GlbError, match="node 2 has several parents"):
        read_glb(scene(nodes, [0, 1]), GlbLimits())


def skinned(*nodes: dict[str, Any], limits: GlbLimits | None = None, outside: bool = False) -> Glb:
    """Read a triangle whose joint is node 1, a child of node 0 unless it is outside the scene.

    `nodes` are that joint and nodes outside the scene.
    """
    builder = GltfBuilder()
    attributes = {
        "POSITION": builder.accessor(np.eye(3)),
        "JOINTS_0": builder.accessor(np.zeros((3, 4)), "|u1"),
        "WEIGHTS_0": builder.accessor(np.ones((3, 4))),
    }
    mesh = builder.add("meshes", {"primitives": [{"attributes": attributes}]})
    builder.add("skins", {"joints": [1]})
    builder.node(mesh=mesh, skin=0, children=[] if outside else [1])
    builder.document["nodes"] += nodes
    return read_glb(pack_scene(builder), limits or GlbLimits())


def test_a_hidden_joint_is_placed_by_its_visible_parent() -> None:
    """The node outside the scene that names it as well, and its hidden children, do not count."""
    joint = {"translation": [1, 0, 0], "extensions": HIDDEN, "children": [2, 2, "a"]}
    glb = skinned(joint, {"children": [1], "scale": [9, 9, 9]})
    assert glb.tree.shown == [0]
    assert world_placements(glb.document).matrices[1, :3, 3].tolist() == [1, 0, 0]
    assert glb.document.items("nodes")[0]["children"] == [1]


def test_a_hidden_joint_must_be_valid() -> None:
    with pytest.raises(GlbError, match="translation"):
        skinned({"translation": "far", "extensions": HIDDEN})


def test_joints_count_for_the_limits() -> None:
    """A hidden joint is below node 0; another is at the end of a chain outside the scene."""
    hidden: dict[str, Any] = {"extensions": HIDDEN}
    assert skinned(hidden, limits=GlbLimits(max_nodes=2, max_node_depth=2)).drawn
    for limits in (GlbLimits(max_nodes=1), GlbLimits(max_node_depth=1)):
        with pytest.raises(GlbError, match=r"limit (of|is) 1") as caught:
            skinned(hidden, limits=limits)
        assert caught.value.kind == "too_large"
    chain = [{}, *({"children": [index]} for index in range(1, 256))]
    assert skinned(*chain, outside=True).tree.shown == [0]
    with pytest.raises(GlbError, match="deeper than the limit of 256"):
        skinned(*chain, {"children": [256]}, outside=True)
