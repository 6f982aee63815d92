"""The evaluation of a file's geometry: nodes, instances, morph targets, skins, triangles."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glb.glb_error import GlbError
from glb.placements import compose
from tests.support.evaluated_files import CORNERS, evaluate, triangle
from tests.support.gltf_builder import GltfBuilder


def world(points: np.ndarray) -> np.ndarray:
    """Return points in axes with z up."""
    return np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1)


@pytest.mark.parametrize("offset", [1e3, 1e6, 4e7, 1e11])
def test_a_distant_node_keeps_the_shape(tmp_path: Path, offset: float):
    """Such offsets are coordinates of maps, which single precision rounds to metres."""
    builder = GltfBuilder()
    parent = builder.node(translation=[offset, 2 * offset, -offset])
    builder.node(parent, mesh=triangle(builder), translation=[0.25, 0, 0])
    scene = evaluate(builder, tmp_path)
    shape = scene.surface.positions - scene.surface.positions[0]
    np.testing.assert_allclose(shape, world(CORNERS), atol=4 * offset * 2**-52)
    assert 2 * offset <= scene.reach[0] <= 4 * offset


def test_the_way_there_and_back_counts_as_distance(tmp_path: Path):
    builder = GltfBuilder()
    there = builder.node(translation=[1e20, 0, 0])
    builder.node(there, mesh=triangle(builder), translation=[-1e20, 0, 0])
    assert evaluate(builder, tmp_path).reach[0] >= 1e20


def test_shear_and_mirrors_of_a_matrix_apply(tmp_path: Path):
    builder = GltfBuilder()
    linear = np.array([[-1, 0.5, 0], [0, 2, 0], [0, 0, 1.0]])
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    builder.node(mesh=triangle(builder), matrix=matrix.T.ravel().tolist())
    surface = evaluate(builder, tmp_path).surface
    np.testing.assert_allclose(surface.positions, world(CORNERS @ linear.T))
    first, second, third = surface.triangles[0]
    # Mirrored, the triangle still faces glTF's +z: the world's -y.
    assert np.cross(second - first, third - first)[1] < 0


def test_normals_stay_perpendicular_under_shear(tmp_path: Path):
    builder = GltfBuilder()
    mesh = triangle(builder, NORMAL=[[0, 0, 1]] * 3)
    matrix = np.eye(4)
    matrix[:3, :3] = [[1, 0, 0], [0, 1, 0], [2, 3, -0.1]]
    builder.node(mesh=mesh, matrix=matrix.T.ravel().tolist())
    surface = evaluate(builder, tmp_path).surface
    first, second, third = surface.triangles[0]
    across = np.cross(second - first, third - first)
    cosine = surface.normals @ (across / np.linalg.norm(across))
    np.testing.assert_allclose(cosine, 1, atol=1e-6)


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=4))
def test_a_quaternion_of_any_length_is_a_rotation(values: list[float]):
    (matrix,) = compose(np.zeros((1, 3)), np.array([values]), np.ones((1, 3)))
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-9)
    assert np.linalg.det(matrix) == pytest.approx(1)


def test_a_quaternion_of_length_zero_rotates_nothing():
    (matrix,) = compose(np.zeros((1, 3)), np.zeros((1, 4)), np.ones((1, 3)))
    np.testing.assert_array_equal(matrix, np.eye(4))


@pytest.mark.parametrize(
    "mode, expected",
    [
        (4, [[0, 1, 2]]),
        (5, [[0, 1, 2], [1, 3, 2]]),
        (6, [[1, 2, 0], [2, 3, 0]]),
    ],
    ids=["list", "strip", "fan"],
)
def test_the_triangles_of_each_mode(tmp_path: Path, mode: int, expected: list[list[int]]):
    builder = GltfBuilder()
    square = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=float)
    mesh = triangle(builder, square if mode != 4 else square[:3])
    builder.document["meshes"][mesh]["primitives"][0]["mode"] = mode
    builder.node(mesh=mesh)
    surface = evaluate(builder, tmp_path).surface
    assert surface.faces.tolist() == expected


def test_vertices_without_a_triangle_are_left_out(tmp_path: Path):
    builder = GltfBuilder()
    mesh = triangle(builder, np.concatenate([[[9e9, 0, 0]], CORNERS]))
    indices = builder.accessor([1, 2, 3], "<u2")
    builder.document["meshes"][mesh]["primitives"][0]["indices"] = indices
    builder.node(mesh=mesh)
    scene = evaluate(builder, tmp_path)
    np.testing.assert_array_equal(scene.surface.positions, world(CORNERS))
    assert scene.reach[0] < 10


def test_quantised_values_are_numbers(tmp_path: Path):
    builder = GltfBuilder()
    positions = builder.accessor(np.array([[0, 0, 0], [255, 0, 0], [0, 51, 0]]), "|u1")
    builder.document["accessors"][positions]["normalized"] = True
    colours = builder.accessor(np.array([[65535, 0, 13107]] * 3), "<u2", normalized=True)
    attributes = {"POSITION": positions, "COLOR_0": colours}
    builder.node(mesh=builder.add("meshes", {"primitives": [{"attributes": attributes}]}))
    surface = evaluate(builder, tmp_path).surface
    np.testing.assert_allclose(surface.positions, [[0, 0, 0], [1, 0, 0], [0, 0, 0.2]])
    assert surface.colours is not None
    np.testing.assert_allclose(surface.colours, [[1, 0, 0.2, 1]] * 3, rtol=1e-6)


def test_colours_of_integers_are_fractions_even_if_the_file_forgot_it(tmp_path: Path):
    for dtype, largest in (("|u1", 255), ("<u2", 65535)):
        builder = GltfBuilder()
        colours = builder.accessor(np.array([[1, 0, 0.2]] * 3) * largest, dtype)
        attributes = {"POSITION": builder.accessor(CORNERS), "COLOR_0": colours}
        builder.node(mesh=builder.add("meshes", {"primitives": [{"attributes": attributes}]}))
        surface = evaluate(builder, tmp_path).surface
        assert surface.colours is not None
        np.testing.assert_allclose(surface.colours, [[1, 0, 0.2, 1]] * 3, rtol=1e-6)


def test_huge_texture_coordinates_are_moved_to_where_float32_has_no_fractions(tmp_path: Path):
    builder = GltfBuilder()
    material = builder.material(texture=builder.texture(np.zeros((2, 2, 3))))
    uvs = [[0, 0.5], [1e30, -1e38], [2.0**24, 7]]
    mesh = triangle(builder, TEXCOORD_0=uvs)
    builder.document["meshes"][mesh]["primitives"][0]["material"] = material
    builder.node(mesh=mesh)
    found = evaluate(builder, tmp_path).surface.uvs[0]
    np.testing.assert_array_equal(found, [[0, 0.5], [2.0**24, -(2.0**24)], [2.0**24, 7]])


def test_targets_move_positions_and_turn_normals(tmp_path: Path):
    builder = GltfBuilder()
    mesh = triangle(builder, NORMAL=[[0, 0, 1]] * 3)
    item = builder.document["meshes"][mesh]
    item["primitives"][0]["targets"] = [
        {
            "POSITION": builder.accessor([[0, 0, 2]] * 3),
            "NORMAL": builder.accessor([[2, 0, 0]] * 3),
        },
        {"POSITION": builder.accessor([[5, 5, 5]] * 3)},
    ]
    item["weights"] = [1.0, 0.0]
    builder.node(mesh=mesh)
    builder.node(mesh=mesh, weights=[0.5])
    surface = evaluate(builder, tmp_path).surface
    expected = [world(np.add(CORNERS, [0, 0, weight * 2])) for weight in (1, 0.5)]
    np.testing.assert_allclose(surface.positions, np.concatenate(expected))
    tilted = np.array([[2, 0, 1], [1, 0, 1]]) / np.sqrt([[5], [2]])
    np.testing.assert_allclose(surface.normals[::3], world(tilted), atol=1e-6)


def skin(builder: GltfBuilder, weights: list[list[float]], joints: list[list[int]]) -> int:
    mesh = triangle(builder, WEIGHTS_0=weights)
    primitive = builder.document["meshes"][mesh]["primitives"][0]
    primitive["attributes"]["JOINTS_0"] = builder.accessor(joints, "|u1")
    return mesh


def test_joints_place_the_vertices_from_the_bind_pose(tmp_path: Path):
    """Joint 0 stays in its bind pose; joint 1 was bound at x = 10 and is at y = 3 now."""
    builder = GltfBuilder()
    mesh = skin(builder, [[1, 0, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0]], [[0, 1, 0, 0]] * 3)
    far = 1e7
    nodes = [builder.node(translation=[far, 0, 0]), builder.node(translation=[far, 3, 0])]
    bind = np.tile(np.eye(4), (2, 1, 1))
    bind[0, 0, 3], bind[1, 0, 3] = -far, -10 - far
    matrices = builder.accessor(bind.transpose(0, 2, 1).reshape(2, 16))
    builder.add("skins", {"joints": nodes, "inverseBindMatrices": matrices})
    # The place of the node itself has no effect.
    builder.node(mesh=mesh, skin=0, translation=[7, 7, 7])
    surface = evaluate(builder, tmp_path).surface
    # Weights are scaled to 1; the vertex without any follows its first joint.
    expected = np.add(CORNERS, [[0, 0, 0], [-10, 3, 0], [0, 0, 0]])
    np.testing.assert_allclose(surface.positions, world(expected), atol=1e-8)


def test_instances_place_a_copy_each(tmp_path: Path):
    builder = GltfBuilder()
    attributes = {
        "TRANSLATION": builder.accessor([[1, 0, 0], [0, 0, 5]]),
        "SCALE": builder.accessor([[1, 1, 1], [2, 2, -2]]),
    }
    extensions = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}
    builder.node(mesh=triangle(builder), extensions=extensions, translation=[0, 1, 0])
    surface = evaluate(builder, tmp_path).surface
    expected = [world(np.add(CORNERS, [1, 1, 0])), world(CORNERS * [2, 2, -2] + [0, 1, 5])]
    np.testing.assert_allclose(surface.positions, np.concatenate(expected))
    assert surface.parts.tolist() == [0, 1]
    # The second instance is mirrored, so its order of corners is reversed.
    assert surface.faces.tolist() == [[0, 1, 2], [5, 4, 3]]


def test_attributes_that_a_primitive_lacks_are_filled(tmp_path: Path):
    builder = GltfBuilder()
    texture = builder.texture(np.zeros((2, 2, 3)))
    slot = {"index": texture, "texCoord": 1}
    material = builder.add("materials", {"pbrMetallicRoughness": {"baseColorTexture": slot}})
    plain = triangle(builder, NORMAL=[[0, 0, 1]] * 3)
    textured = triangle(builder, TEXCOORD_1=[[0.5, 0.25]] * 3, COLOR_0=[[0.1, 0.2, 0.3]] * 3)
    builder.document["meshes"][textured]["primitives"][0]["material"] = material
    for mesh in (plain, textured):
        builder.node(mesh=mesh)
    surface = evaluate(builder, tmp_path).surface
    assert list(surface.uvs) == [0]
    np.testing.assert_allclose(surface.uvs[0], [[0, 0]] * 3 + [[0.5, 0.25]] * 3)
    assert surface.colours is not None
    np.testing.assert_allclose(surface.colours, [[1] * 4] * 3 + [[0.1, 0.2, 0.3, 1]] * 3)
    assert surface.flat.tolist() == [False, True]


def test_each_material_numbers_its_own_sets(tmp_path: Path):
    """Blender has 8 layers of texture coordinates, and files may use any numbers."""
    builder = GltfBuilder()
    texture = builder.texture(np.zeros((2, 2, 3)))
    for number in (0, 7, 3_000_000):
        slot = {"index": texture, "texCoord": 5}
        slot["extensions"] = {"KHR_texture_transform": {"texCoord": number}}
        material = {"pbrMetallicRoughness": {"baseColorTexture": slot}}
        mesh = triangle(builder, **{f"TEXCOORD_{number}": [[0.5, number / 4e6]] * 3})
        primitive = builder.document["meshes"][mesh]["primitives"][0]
        primitive["material"] = builder.add("materials", material)
        builder.node(mesh=mesh)
    surface = evaluate(builder, tmp_path).surface
    assert list(surface.uvs) == [0]
    np.testing.assert_allclose(surface.uvs[0][::3], [[0.5, 0], [0.5, 0], [0.5, 0.75]], atol=1e-5)


def test_more_sets_than_blender_has_are_refused(tmp_path: Path):
    builder = GltfBuilder()
    index = builder.texture(np.zeros((2, 2, 3)))
    slots = iter({"index": index, "texCoord": number} for number in range(9))
    material: dict[str, Any] = {"normalTexture": next(slots), "emissiveTexture": next(slots)}
    material["pbrMetallicRoughness"] = {
        name: next(slots) for name in ("baseColorTexture", "metallicRoughnessTexture")
    }
    names = {
        "KHR_materials_clearcoat": ("clearcoatTexture", "clearcoatRoughnessTexture"),
        "KHR_materials_sheen": ("sheenColorTexture", "sheenRoughnessTexture"),
        "KHR_materials_transmission": ("transmissionTexture",),
    }
    material["extensions"] = {
        extension: {name: next(slots) for name in textures} for extension, textures in names.items()
    }
    mesh = triangle(builder)
    builder.document["meshes"][mesh]["primitives"][0]["material"] = builder.add(
        "materials", material
    )
    builder.node(mesh=mesh)
    with pytest.raises(GlbError, match="9 sets of texture coordinates") as caught:
        evaluate(builder, tmp_path)
    assert caught.value.kind == "refused"


def test_coordinates_that_overflow_are_refused(tmp_path: Path):
    builder = GltfBuilder()
    parent = builder.node(scale=[1e200] * 3)
    builder.node(parent, mesh=triangle(builder), scale=[1e200] * 3)
    with pytest.raises(GlbError, match="infinite") as caught:
        evaluate(builder, tmp_path)
    assert caught.value.kind == "refused"


def test_copies_beyond_the_limit_are_refused(tmp_path: Path):
    builder = GltfBuilder()
    mesh = triangle(builder)
    for _ in range(1001):
        builder.node(mesh=mesh)
    with pytest.raises(GlbError) as caught:
        evaluate(builder, tmp_path)
    assert caught.value.kind == "too_large"
