"""Geometry of files that bend the specification: its right value is what viewers show."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glb.glb_error import GlbError
from tests.support.evaluated_files import CORNERS, evaluate
from tests.support.gltf_builder import GltfBuilder


def triangle(builder: GltfBuilder, corners: np.ndarray = CORNERS, **attributes: int) -> int:
    primitive = {"attributes": {"POSITION": builder.accessor(corners)} | attributes}
    return builder.add("meshes", {"primitives": [primitive]})


def world(points: np.ndarray) -> np.ndarray:
    """Return points in axes with z up."""
    return np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1)


LAST_ROWS = {"zero": [0, 0, 0, 0], "translation of a transposed matrix": [7, 8, 9, 1]}


@pytest.mark.parametrize("row", LAST_ROWS.values(), ids=LAST_ROWS)
@pytest.mark.parametrize("odd", ["parent", "child"])
def test_the_last_row_of_a_matrix_has_no_effect(tmp_path: Path, row: list[float], odd: str):
    matrix = np.eye(4)
    matrix[:3, 3], matrix[3] = (1, 2, 3), row
    as_matrix, as_translation = {"matrix": matrix.T.ravel().tolist()}, {"translation": [1, 2, 3]}
    builder = GltfBuilder()
    parent = builder.node(**(as_matrix if odd == "parent" else as_translation))
    child = as_matrix if odd == "child" else as_translation
    builder.node(parent, mesh=triangle(builder), **child)
    positions = evaluate(builder, tmp_path).surface.positions
    np.testing.assert_allclose(positions, world(np.add(CORNERS, [2, 4, 6])))


def skin(builder: GltfBuilder, nodes: list[int], joints: Any, weights: Any, **fields: Any) -> int:
    """Add a triangle that is placed by joints; return its node."""
    attributes = {
        "JOINTS_0": builder.accessor(joints, "|u1"),
        "WEIGHTS_0": builder.accessor(weights),
    }
    index = builder.add("skins", {"joints": nodes} | fields)
    corners = np.tile(CORNERS, (len(joints) // 3, 1))
    return builder.node(mesh=triangle(builder, corners, **attributes), skin=index)


@pytest.mark.parametrize("row", LAST_ROWS.values(), ids=LAST_ROWS)
def test_the_last_row_of_a_bind_matrix_has_no_effect(tmp_path: Path, row: list[float]):
    builder = GltfBuilder()
    bind = np.eye(4)
    bind[3] = row
    matrices = builder.accessor([bind.T.ravel()])
    joint = builder.node(translation=[1, 2, 3])
    skin(builder, [joint], [[0] * 4] * 3, [[1, 0, 0, 0]] * 3, inverseBindMatrices=matrices)
    positions = evaluate(builder, tmp_path).surface.positions
    np.testing.assert_allclose(positions, world(np.add(CORNERS, [1, 2, 3])))


def test_a_joint_without_a_weight_may_have_any_number(tmp_path: Path):
    builder = GltfBuilder()
    joint = builder.node(translation=[1, 2, 3])
    skin(builder, [joint], [[200, 0, 255, 255]] * 3, [[0, 1, 0, 0]] * 3)
    positions = evaluate(builder, tmp_path).surface.positions
    np.testing.assert_allclose(positions, world(np.add(CORNERS, [1, 2, 3])))


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_a_joint_that_moves_a_vertex_must_exist(tmp_path: Path, weight: float):
    """A vertex without weights follows its first joint."""
    builder = GltfBuilder()
    skin(builder, [builder.node()], [[200, 0, 0, 0]] * 3, [[weight, 0, 0, 0]] * 3)
    with pytest.raises(GlbError, match="joint 200 is out of range"):
        evaluate(builder, tmp_path)


def test_joints_may_mirror_a_part_of_a_primitive(tmp_path: Path):
    """Only the faces that a mirrored joint places have their order of corners reversed."""
    builder = GltfBuilder()
    nodes = [builder.node(), builder.node(scale=[-1, 1, 1])]
    skin(builder, nodes, [[0] * 4] * 6 + [[1, 0, 0, 0]] * 3, [[1, 0, 0, 0]] * 9)
    surface = evaluate(builder, tmp_path).surface
    assert surface.faces.tolist() == [[0, 1, 2], [3, 4, 5], [8, 7, 6]]


def test_a_target_of_normals_that_a_primitive_lacks_moves_only_positions(tmp_path: Path):
    builder = GltfBuilder()
    mesh = triangle(builder)
    differences = builder.accessor([[1, 2, 3]] * 3)
    item = builder.document["meshes"][mesh]
    item["primitives"][0]["targets"] = [{"POSITION": differences, "NORMAL": differences}]
    builder.node(mesh=mesh, weights=[1.0])
    surface = evaluate(builder, tmp_path).surface
    np.testing.assert_allclose(surface.positions, world(np.add(CORNERS, [1, 2, 3])))
    assert surface.flat.all()


def test_instances_with_attributes_of_their_own_only_are_drawn(tmp_path: Path):
    builder = GltfBuilder()
    extensions = {"EXT_mesh_gpu_instancing": {"attributes": {"_ID": builder.accessor([0.0, 1.0])}}}
    builder.node(mesh=triangle(builder), extensions=extensions, translation=[1, 2, 3])
    positions = evaluate(builder, tmp_path).surface.positions
    np.testing.assert_allclose(positions, world(np.add(CORNERS, [1, 2, 3])))


def test_sparse_values_replace_indices_that_are_out_of_range(tmp_path: Path):
    builder = GltfBuilder()
    mesh = triangle(builder)
    indices = builder.accessor([0, 1, 999], "<u2")
    builder.document["accessors"][indices]["sparse"] = {
        "count": 1,
        "indices": {"bufferView": builder.view(b"\2"), "componentType": 5121},
        "values": {"bufferView": builder.view(b"\2\0")},
    }
    builder.document["meshes"][mesh]["primitives"][0]["indices"] = indices
    builder.node(mesh=mesh)
    assert evaluate(builder, tmp_path).surface.faces.tolist() == [[0, 1, 2]]
