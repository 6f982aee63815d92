"""The parser accepts what Blender can import and rejects all else with the right failure kind."""

import base64
import copy
import importlib
import importlib.util
import json
import pickle
import re
import struct
import sys
import tempfile
import time
import types
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.failures import FailureKind, StageFailed
from filters.inspect_glb import inspect_glb
from glb.container import glb_problem
from glb.extensions import IMPORTABLE_EXTENSIONS, REMOVED_EXTENSIONS
from glb.geometry.vertex_values import DecodedMesh
from glb.glb_error import GlbError
from glb.limits import GlbLimits
from glb.parse import read_glb
from glb.placements import world_placements
from render.blender.gltf.prepare import prepare
from tests.support.small_glbs import (
    changed_square,
    pack_glb,
    picture,
    skinned_square,
    square_with_extension,
    textured_square,
)

DOCUMENT, BINARY = textured_square()
PRIMITIVE = DOCUMENT["meshes"][0]["primitives"][0]


def with_header(body: bytes) -> bytes:
    """Return a GLB of these chunks with a header that states their length."""
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def parse_error(data: bytes, limits: GlbLimits | None = None) -> GlbError:
    """Return the error that the parser raises for the file."""
    with pytest.raises(GlbError) as caught:
        read_glb(data, limits or GlbLimits())
    return caught.value


def test_a_parse_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(parse_error(b"")))
    assert (error.kind, str(error)) == ("malformed", "not a GLB file (0 bytes)")


@pytest.mark.parametrize(
    ("mode", "corners", "triangles"),
    [(4, 1, 0), (4, 2, 0), (4, 5, 1), (5, 0, 0), (5, 2, 0), (5, 5, 3), (6, 2, 0), (1, 5, 0)],
)
def test_only_whole_triangles_are_drawn(mode: int, corners: int, triangles: int) -> None:
    accessors = [*DOCUMENT["accessors"], DOCUMENT["accessors"][2] | {"count": corners}]
    part = PRIMITIVE | {"indices": 3, "mode": mode}
    data = changed_square(accessors=accessors, meshes=[{"primitives": [PRIMITIVE, part]}])
    drawn = read_glb(data, GlbLimits()).drawn
    assert sum(item.triangles for item in drawn) == 2 + triangles


def test_corners_without_indices_are_those_of_whole_triangles() -> None:
    part = {"attributes": {"POSITION": 0}}
    data = changed_square(meshes=[{"primitives": [PRIMITIVE, part]}])
    assert [item.triangles for item in read_glb(data, GlbLimits()).drawn] == [2, 1]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", id="lfs"),
        pytest.param(b"glTF" + struct.pack("<II", 1, 20) + b"\0" * 8, id="version 1"),
        pytest.param(pack_glb(DOCUMENT, BINARY)[:-1], id="one byte short"),
        pytest.param(pack_glb(DOCUMENT, BINARY) + b"\0", id="one byte long"),
        pytest.param(pack_glb(b"{]"), id="not JSON"),
        pytest.param(pack_glb(b"[" * 200_000), id="deep JSON"),
        pytest.param(pack_glb(b"\xff\xfe{}"), id="not UTF-8"),
        pytest.param(pack_glb(b"9" * 100_000), id="long number"),
        pytest.param(changed_square(asset={"version": "1.0"}), id="glTF 1"),
        pytest.param(changed_square(nodes=[{"children": [1]}, {"children": [0]}]), id="cycle"),
        pytest.param(changed_square(nodes=[{"mesh": 0, "children": [0]}]), id="own child"),
        pytest.param(
            changed_square(nodes=[{"children": [1, 2]}, {"children": [2]}, {"mesh": 0}]),
            id="two parents",
        ),
        pytest.param(changed_square(nodes=[{"children": [7]}]), id="no such child"),
        pytest.param(changed_square(nodes=[{"mesh": -1}]), id="negative index"),
        pytest.param(
            changed_square(nodes=[{"mesh": 0, "scale": ["a", 1, 1]}]), id="text for a number"
        ),
        pytest.param(
            changed_square(meshes=[{"primitives": [PRIMITIVE | {"mode": 9}]}]), id="unknown mode"
        ),
        pytest.param(
            changed_square(meshes=[{"primitives": [PRIMITIVE | {"indices": 0}]}]),
            id="float indices",
        ),
        pytest.param(
            changed_square(materials=[{"normalTexture": {"index": 0, "scale": "big"}}]),
            id="text for a scale",
        ),
        pytest.param(
            changed_square(images=[{"uri": "data:image/png,abc"}]), id="data URI not base64"
        ),
        pytest.param(changed_square(images=[{"mimeType": "image/png"}]), id="image without bytes"),
        pytest.param(
            changed_square(buffers=[{"byteLength": 4}] * 2, bufferViews=[]), id="no buffer views"
        ),
        pytest.param(pack_glb(DOCUMENT, BINARY[:50]), id="short buffer"),
        pytest.param(pack_glb(DOCUMENT, None), id="no buffer"),
        pytest.param(changed_square(extras=float("nan")), id="NaN"),
        pytest.param(
            changed_square(extras="eh?").replace(b'"eh?"', b"1e999"),
            id="number beyond the float range",
        ),
        pytest.param(changed_square(images=[{"uri": "data:image/png;base64,a"}]), id="bad base64"),
        pytest.param(
            pack_glb(DOCUMENT, BINARY).replace(b"JSON", b"BIN\0", 1), id="first chunk BIN"
        ),
        pytest.param(
            with_header(pack_glb(DOCUMENT, BINARY + bytes(4))[12:-1]), id="ends in a chunk"
        ),
        pytest.param(with_header(pack_glb(DOCUMENT, None)[12:] + bytes(4)), id="ends in a header"),
    ],
)
def test_an_invalid_file_is_malformed(data: bytes) -> None:
    assert parse_error(data).kind == "malformed"


def test_indices_must_be_in_range_and_positions_finite() -> None:
    beyond = bytearray(BINARY)
    at = DOCUMENT["bufferViews"][2]["byteOffset"]
    beyond[at : at + 2] = struct.pack("<H", 4)
    assert parse_error(pack_glb(DOCUMENT, bytes(beyond))).kind == "malformed"
    infinite = np.frombuffer(BINARY, dtype="<f4", count=12).copy()
    infinite[5] = np.inf
    assert parse_error(pack_glb(DOCUMENT, infinite.tobytes() + BINARY[48:])).kind == "malformed"


@pytest.mark.parametrize(
    "uri", ["colormap.png", "../../etc/passwd", "https://example.com/a.png", "file:///a", ""]
)
def test_a_reference_to_another_file_is_an_external_reference(uri: str) -> None:
    assert parse_error(changed_square(images=[{"uri": uri}])).kind == "external_reference"
    if uri:
        buffers = [{"byteLength": len(BINARY), "uri": uri}]
        assert parse_error(changed_square(buffers=buffers)).kind == "external_reference"


def test_data_uris_are_read() -> None:
    def uri(data: bytes) -> str:
        return "data:application/octet-stream;base64," + base64.b64encode(data).decode()

    buffers = [{"byteLength": len(BINARY), "uri": uri(BINARY)}]
    inside = DOCUMENT | {"buffers": buffers, "images": [{"uri": uri(picture("JPEG"))}]}
    inspection = inspect_glb(pack_glb(inside, None))
    assert inspection.base_colour_maps[0].state == "detailed"


@pytest.mark.parametrize(
    "name",
    ["MSFT_texture_dds", "GOOGLE_texture_basis", "ACME_gizmo"],
)
def test_required_extensions_that_the_importer_lacks_are_unsupported(name: str) -> None:
    error = parse_error(square_with_extension(name))
    assert error.kind == "unsupported_extension"
    assert name in error.message
    assert inspect_glb(changed_square(extensionsUsed=[name])).extensions_used == (name,)


def test_required_extensions_that_the_importer_has_are_accepted() -> None:
    names = sorted(IMPORTABLE_EXTENSIONS)
    inspection = inspect_glb(changed_square(extensionsUsed=names, extensionsRequired=names))
    assert inspection.extensions_required == tuple(names)


def importer() -> Path | None:
    """Return the folder of Blender's importer; None if Blender is not installed."""
    spec = importlib.util.find_spec("bpy")
    if spec is None or spec.origin is None:
        return None
    (folder,) = Path(spec.origin).parent.rglob("io_scene_gltf2")
    return folder


def test_importable_extensions_are_those_of_the_importer_and_the_removed_ones() -> None:
    folder = importer()
    if folder is None:
        pytest.skip("bpy is not installed")
    source = (folder / "io" / "imp" / "gltf2_io_gltf.py").read_text()
    listed = re.search(r"extensions_managed = \[(.*?)\]", source, re.DOTALL)
    assert listed is not None
    assert (
        set(re.findall(r"'(\w+)'", listed.group(1))) | REMOVED_EXTENSIONS == IMPORTABLE_EXTENSIONS
    )


def test_a_file_over_a_limit_is_too_large() -> None:
    data = pack_glb(DOCUMENT, BINARY)
    caps = {
        "max_file_bytes": len(data) - 1,
        "max_json_bytes": 100,
        "max_nodes": 1,
        "max_node_depth": 1,
        "max_triangles": 1,
        "max_elements": 13,
        "max_image_pixels": 63,
        "max_total_pixels": 63,
    }
    for name, cap in caps.items():
        assert parse_error(data, GlbLimits(**{name: cap})).kind == "too_large", name
        read_glb(data, GlbLimits(**{name: cap + 1 if cap != 100 else len(data)}))


def test_materials_are_counted() -> None:
    square = DOCUMENT["meshes"][0]["primitives"][0]
    data = changed_square(
        meshes=[{"primitives": [square | {"material": n % 5} for n in range(10)]}],
        materials=[{}] * 5,
    )
    read_glb(data, GlbLimits(max_materials=5))
    error = parse_error(data, GlbLimits(max_materials=4))
    assert (error.kind, error.message) == ("too_large", "5 drawn materials; the limit is 4")


SQUARE = {"attributes": {"POSITION": 0}, "indices": 2}
TARGET = {"POSITION": 0}
JOINTS = {f"{name}_{n}": 3 for n in range(50) for name in ("JOINTS", "WEIGHTS")}


@pytest.mark.parametrize(
    ("meshes", "nodes"),
    [
        ([[SQUARE | {"targets": [TARGET] * 200}]], [{"mesh": 0}]),
        ([[SQUARE | {"targets": [{}] * 200}]], [{"mesh": 0}]),
        ([[SQUARE] * 1001], [{"mesh": 0}]),
        ([[SQUARE] * 101], [{"mesh": 0}] * 10),
        ([[SQUARE]] * 1001, [{"mesh": n} for n in range(1001)]),
        (
            [[SQUARE | {"targets": [TARGET] * 20}]],
            [{"mesh": 0, "weights": [n]} for n in (1, 2)] * 5,
        ),
    ],
    ids=["targets", "empty targets", "primitives", "copies", "meshes", "poses"],
)
def test_steps_are_counted_before_they_take_time(meshes: list, nodes: list) -> None:
    data = changed_square(
        meshes=[{"primitives": primitives} for primitives in meshes],
        nodes=nodes,
        scenes=[{"nodes": list(range(len(nodes)))}],
    )
    error = parse_error(data, GlbLimits(max_parts=1000))
    assert error.kind == "too_large"
    assert error.message.endswith("copies of primitives and morph targets than the limit of 1000")
    read_glb(data, GlbLimits(max_parts=1020))


@pytest.mark.parametrize("bomb", ["poses", "skins"])
def test_arrays_that_many_nodes_read_again_are_counted(bomb: str) -> None:
    """200 elements are within the limit, unless many nodes read them."""
    part, node = SQUARE | {"targets": [TARGET] * 50}, {"mesh": 0, "weights": [1]}
    if bomb == "skins":
        part, node = SQUARE | {"attributes": {"POSITION": 0} | JOINTS}, {"mesh": 0, "skin": 0}
    data = {}
    for count in (2, 20):
        data[count] = changed_square(
            meshes=[{"primitives": [part]}],
            nodes=[node] * count,
            scenes=[{"nodes": list(range(count))}],
            accessors=[*DOCUMENT["accessors"], {"componentType": 5123, "count": 4, "type": "VEC4"}],
            skins=[{"joints": [0]}],
        )
    limits = GlbLimits(max_elements=420, max_triangles=100)
    read_glb(data[2], limits)
    error = parse_error(data[20], GlbLimits(max_elements=250 if bomb == "poses" else 420))
    assert "repeat more elements" in error.message


def test_vertices_are_limited_by_the_triangles() -> None:
    """Vertices that no triangle uses take memory, too."""
    positions, coordinates, indices = DOCUMENT["accessors"]
    data = changed_square(accessors=[positions, coordinates, indices | {"count": 3}])
    error = parse_error(data, GlbLimits(max_triangles=1))
    assert (error.kind, error.message) == ("too_large", "4 vertices; the limit is 3")


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.glb"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(GlbError, match="the limit is 1048576") as caught:
        read_glb(path, GlbLimits(max_file_bytes=1 << 20))
    assert caught.value.kind == "too_large"


def test_a_decompression_bomb_is_not_decoded() -> None:
    bomb = bytearray(picture())
    bomb[16:24] = struct.pack(">II", 60_000, 60_000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    assert parse_error(pack_glb(*textured_square(bytes(bomb)))).kind == "too_large"


def test_deep_and_wide_trees_end_quickly() -> None:
    num = 20_000
    chain = [{"children": [i + 1]} for i in range(num - 1)] + [{"mesh": 0}]
    assert parse_error(changed_square(nodes=chain)).kind == "too_large"
    assert (
        parse_error(
            changed_square(nodes=chain), GlbLimits(max_nodes=num, max_node_depth=num - 1)
        ).kind
        == "too_large"
    )
    wide = GlbLimits(max_nodes=num, max_node_depth=num)
    assert len(read_glb(changed_square(nodes=chain), wide).tree.shown) == num


@pytest.mark.parametrize(("listed", "height"), [([0, 3], 2), ([3, 0], 2), ([3], 0)])
def test_a_root_below_another_root_is_not_a_root(listed: list[int], height: float) -> None:
    """Any number of levels may be between the two; a parent outside the scene places nothing."""
    raised = {"translation": [0, 2, 0]}
    chain = [{"children": [1], **raised}, {"children": [2]}, {"children": [3]}, {"mesh": 0}]
    glb = read_glb(changed_square(nodes=chain, scenes=[{"nodes": listed}]), GlbLimits())
    assert world_placements(glb.document).matrices[3, 1, 3] == height


def test_a_child_of_a_hidden_node_stays_hidden_if_the_scene_lists_it_as_well() -> None:
    hidden = {"KHR_node_visibility": {"visible": False}}
    nodes = [{"mesh": 0, "extensions": hidden, "children": [1]}, {"mesh": 0}, {"mesh": 0}]
    for listed in ([0, 1, 2], [1, 0, 2]):
        tree = read_glb(changed_square(nodes=nodes, scenes=[{"nodes": listed}]), GlbLimits()).tree
        assert tree.shown == [2]


def test_a_scene_of_many_roots_is_read_quickly() -> None:
    """Siblings, chains, and one root listed often: quadratic time would be 7 s or more."""
    every = range(20_000)
    chains = [{"children": [i + 1]} if (i + 1) % 100 else {"mesh": 0} for i in every]
    wide = [{"children": list(every[1:])}, *[{"mesh": 0}] * 19_999]
    for nodes, listed in (([{"mesh": 0}] * 20_000, every), (chains, every), (wide, [0] * 20_000)):
        data = changed_square(nodes=nodes, scenes=[{"nodes": list(listed)}])
        started = time.process_time()
        read_glb(data, GlbLimits())
        assert time.process_time() - started < 2


@pytest.mark.parametrize(("stride", "passes"), [(2**63 - 4, True), (2**63, False)])
def test_a_stride_must_fit_a_64_bit_integer(stride: int, passes: bool) -> None:
    """A single element does not use the stride, but numpy and the importer cannot hold it."""
    positions, *others = DOCUMENT["accessors"]
    far = DOCUMENT["bufferViews"][0] | {"byteStride": stride}
    data = changed_square(
        bufferViews=[*DOCUMENT["bufferViews"], far],
        accessors=[positions, *others, positions | {"bufferView": 4, "count": 1}],
        meshes=[{"primitives": [PRIMITIVE, {"attributes": {"POSITION": 3}, "mode": 4}]}],
    )
    if passes:
        assert len(read_glb(data, GlbLimits()).drawn) == 1
    else:
        assert parse_error(data).kind == "malformed"


def test_a_long_list_of_empty_nodes_is_too_large() -> None:
    assert parse_error(changed_square(nodes=[{}] * 300_000)).kind == "too_large"


def test_many_images_of_the_same_bytes_end_quickly() -> None:
    _, binary = textured_square(picture(size=(64, 64)))
    views = DOCUMENT["bufferViews"] + [
        {"buffer": 0, "byteOffset": 0, "byteLength": len(binary) - i} for i in range(50)
    ]
    overlapping = [{"bufferView": 4 + i} for i in range(50)]
    document = with_many_images(overlapping) | {"bufferViews": views}
    error = parse_error(pack_glb(document, binary))
    assert (error.kind, error.message) == ("malformed", "the images overlap in the file")
    same = with_many_images(DOCUMENT["images"] * 1000)
    assert inspect_glb(pack_glb(same, BINARY)).num_images == 1000


def with_many_images(images: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the square's document with one more primitive for each image."""
    slots = [{"baseColorTexture": {"index": index}} for index in range(len(images))]
    parts = [PRIMITIVE | {"material": index} for index in range(len(images))]
    return DOCUMENT | {
        "images": images,
        "textures": [{"source": index} for index in range(len(images))],
        "materials": [{"pbrMetallicRoughness": slot} for slot in slots],
        "meshes": [{"primitives": [PRIMITIVE]}, {"primitives": parts}],
        "nodes": [{"children": [1]}, {"mesh": 0, "children": [2]}, {"mesh": 1}],
    }


# Random input


Parser = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def parse_as_blender() -> Parser:
    """Return the importer's own first step, which raises an error for a value of a wrong type.

    Without Blender, return a function that does nothing.
    """
    folder = importer()
    if folder is None:
        return lambda document: None
    # The importer's own __init__ needs all of Blender, so an empty package replaces it here.
    package = types.ModuleType("io_scene_gltf2")
    package.__path__ = [str(folder)]
    with mock.patch.dict(sys.modules, {package.__name__: package}):
        module = importlib.import_module(f"{package.__name__}.io.com.gltf2_io")
    parser: Parser = module.gltf_from_dict
    return parser


def inspect_or_reject(data: bytes, parse_as_blender: Parser) -> None:
    """Require a result that JSON can hold, or a GlbError; any other exception fails the test.

    If the inspection accepts the file, the Blender child must prepare one that the parser accepts.
    """
    try:
        json.dumps(inspect_glb(data).to_dict(), allow_nan=False)
    except GlbError as error:
        assert error.message
        assert "\n" not in error.message
        return
    with tempfile.TemporaryDirectory() as folder:
        path, materials = Path(folder) / "a.glb", Path(folder) / "materials.glb"
        path.write_bytes(data)
        assert glb_problem(path) == ""
        try:
            prepare(path, GlbLimits(), materials, no_decoder)
        except StageFailed as failure:
            # Coordinates that overflow, a truncated image, compressed data.
            assert failure.kind in {"refused", "import_error"}
            return
        document = read_glb(materials, GlbLimits()).document.json
    parse_as_blender(document)


def no_decoder(data: memoryview, types: Mapping[int, tuple[np.dtype, int]]) -> DecodedMesh:
    raise GlbError(FailureKind.IMPORT_ERROR, "there is no decoder here")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 10)
    | st.sampled_from([2**31, 2**40, 2**63, 10**30])
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["data:;base64,AAAA", "data:x", "VEC3", "SCALAR", "MAT4"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["index", "source", "nodes", "children", "count", "mesh", "POSITION"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=6,
)
quick = settings(max_examples=300)


def all_paths(value, path=()) -> list[tuple]:
    children = value.items() if isinstance(value, dict) else enumerate(value)
    paths = [path] if path else []
    for key, child in children:
        if isinstance(child, dict | list):
            paths += all_paths(child, (*path, key))
        else:
            paths.append((*path, key))
    return paths


RICH = DOCUMENT | {
    "extensionsUsed": ["EXT_mesh_gpu_instancing", "EXT_texture_webp", "KHR_texture_transform"],
    "extensionsRequired": ["EXT_texture_webp"],
    "animations": [{"channels": []}],
    "textures": [{"extensions": {"EXT_texture_webp": {"source": 0}}}],
    "nodes": [
        {"children": [1, 2]},
        {"mesh": 0},
        {
            "mesh": 0,
            "extensions": {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": 0}}},
        },
    ],
    "accessors": [
        *DOCUMENT["accessors"],
        {
            "componentType": 5126,
            "count": 4,
            "type": "VEC3",
            "sparse": {
                "count": 2,
                "indices": {"bufferView": 2, "componentType": 5123},
                "values": {"bufferView": 0},
            },
        },
    ],
    "meshes": [{"primitives": [PRIMITIVE | {"targets": [{"POSITION": 3}]}]}],
}
SKINNED = skinned_square()
BUFFERS = [{"byteLength": len(SKINNED.binary)}]
FILES = [(RICH, BINARY), (SKINNED.document | {"buffers": BUFFERS}, SKINNED.binary)]
PATHS = [(number, path) for number, (rich, _) in enumerate(FILES) for path in all_paths(rich)]


def test_the_unedited_files_are_accepted() -> None:
    assert [inspect_glb(pack_glb(*file)).num_triangles for file in FILES] == [10, 6]


@quick
@given(st.binary(max_size=400))
def test_random_bytes_are_rejected_with_a_glb_error(parse_as_blender: Parser, data: bytes) -> None:
    inspect_or_reject(data, parse_as_blender)
    inspect_or_reject(b"glTF" + struct.pack("<II", 2, 12 + len(data)) + data, parse_as_blender)


@quick
@given(st.integers(0, len(pack_glb(RICH, BINARY))))
def test_a_file_truncated_anywhere_is_accepted_or_rejected(
    parse_as_blender: Parser, length: int
) -> None:
    inspect_or_reject(pack_glb(RICH, BINARY)[:length], parse_as_blender)


@quick
@given(st.integers(0, len(BINARY)), st.booleans())
def test_a_buffer_truncated_anywhere_is_accepted_or_rejected(
    parse_as_blender: Parser, length: int, declared: bool
) -> None:
    buffers = [{"byteLength": length}] if declared else RICH["buffers"]
    inspect_or_reject(pack_glb(RICH | {"buffers": buffers}, BINARY[:length]), parse_as_blender)


@quick
@given(st.lists(st.tuples(st.sampled_from(PATHS), json_values | st.just(...)), max_size=3))
def test_random_edits_of_the_document(parse_as_blender: Parser, edits: list[tuple]) -> None:
    document, binary = copy.deepcopy(FILES[edits[0][0][0] if edits else 0])
    for (_, path), value in edits:
        *parents, last = path
        container = document
        try:
            for key in parents:
                container = container[key]
            if value is ...:
                del container[last]
            else:
                container[last] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier edit removed the path
    inspect_or_reject(pack_glb(document, binary), parse_as_blender)


@quick
@given(
    st.sampled_from(["PNG", "JPEG", "WEBP"]),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=5),
    st.floats(0, 1),
)
def test_a_damaged_image_is_accepted_or_rejected(
    parse_as_blender: Parser, kind: str, hits: list[tuple], keep: float
) -> None:
    data = bytearray(picture(kind))
    for fraction, damage in hits:
        at = int(fraction * (len(data) - 1))
        data[at : at + len(damage)] = damage
    inspect_or_reject(
        pack_glb(*textured_square(bytes(data[: int(keep * len(data)) + 1]))), parse_as_blender
    )
