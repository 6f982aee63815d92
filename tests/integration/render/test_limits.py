"""Files that are too large or invalid fail fast, with their own kind, and do not end the child."""

import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.cameras import Camera, intrinsics_from_fov, look_at
from filters.inspect_glb import InspectLimits, inspect_glb
from glb.glb_error import GlbError
from glb.limits import GlbLimits
from render.process import BlenderProcess, RenderFailure
from render.render_config import BlenderLimits, RenderConfig
from tests.support.analytic_shapes import edit_glb
from tests.support.gltf_builder import GltfBuilder, encode_image
from tests.support.scripts import run_script

QUICK = RenderConfig(resolution=32, samples=1, denoise=False)
CAMERA = Camera(camera_to_world=look_at(np.array([0, -3.0, 0])), intrinsics=intrinsics_from_fov(50))
HEALTHY_KINDS = {
    "malformed",
    "external_reference",
    "unsupported_extension",
    "empty",
    "too_large",
    "refused",
    "import_error",
}
"""Kinds of failure after which the child goes on."""


@pytest.fixture(scope="module")
def limited() -> Iterator[BlenderProcess]:
    """Start a child in which small files exceed the limits of triangles and texture pixels."""
    limits = GlbLimits(max_triangles=4000, max_total_pixels=2**20)
    with BlenderProcess(BlenderLimits(objects_per_child=1000), glb_limits=limits) as process:
        yield process


def failure_of(blender: BlenderProcess, glb: Path, seconds: float = 3.0) -> RenderFailure:
    """Return the failure of a file, which must be fast, have one line and keep the child alive."""
    before = blender.pid
    started = time.monotonic()
    with pytest.raises(RenderFailure) as caught:
        blender.open(glb, "cube")
    if before is not None:
        assert time.monotonic() - started < seconds
        assert blender.pid == before
    assert str(caught.value) and "\n" not in str(caught.value)
    return caught.value


def square() -> GltfBuilder:
    builder = GltfBuilder()
    builder.node(mesh=builder.quad(builder.material((1, 0, 0, 1))))
    return builder


def attributes(builder: GltfBuilder) -> dict[str, int]:
    values: dict[str, int] = builder.document["meshes"][0]["primitives"][0]["attributes"]
    return values


# Files over a limit


def long_chain(builder: GltfBuilder) -> None:
    for _ in range(3000):
        builder.node(parent=len(builder.document["nodes"]) - 1)


def many_nodes(builder: GltfBuilder) -> None:
    for _ in range(70_000):
        builder.node(mesh=0)


def many_instances(builder: GltfBuilder) -> None:
    positions = {"TRANSLATION": builder.accessor(np.zeros((30_000, 3)))}
    builder.node(mesh=0, extensions={"EXT_mesh_gpu_instancing": {"attributes": positions}})


def claimed_instances(builder: GltfBuilder) -> None:
    positions = {"TRANSLATION": builder.accessor(np.zeros((1, 3)), count=10**12)}
    builder.node(mesh=0, extensions={"EXT_mesh_gpu_instancing": {"attributes": positions}})


def many_uses(builder: GltfBuilder) -> None:
    for _ in range(2000):
        builder.node(mesh=0)


def many_triangles(builder: GltfBuilder) -> None:
    primitive = builder.document["meshes"][0]["primitives"][0]
    primitive["indices"] = builder.accessor(np.zeros(12_003), "<u4")


def long_strip(builder: GltfBuilder) -> None:
    primitive = builder.document["meshes"][0]["primitives"][0]
    primitive |= {"indices": builder.accessor(np.zeros(4003), "<u4"), "mode": 5}


def claim_vertices(builder: GltfBuilder, count: int) -> None:
    """Add normals of zeros, which need no bytes in the file."""
    claim = {"componentType": 5126, "count": count, "type": "VEC3"}
    attributes(builder)["NORMAL"] = builder.add("accessors", claim)


def claimed_vertices(builder: GltfBuilder) -> None:
    claim_vertices(builder, 10**12)


def many_vertices(builder: GltfBuilder) -> None:
    claim_vertices(builder, 12_001)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_image(builder: GltfBuilder) -> None:
    """Add an image whose header states its size; its pixels cannot be decoded."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    material = builder.material(texture=builder.texture(png))
    builder.document["meshes"][0]["primitives"][0]["material"] = material


TOO_LARGE: dict[Callable[[GltfBuilder], None], str] = {
    long_chain: "nest deeper",
    many_nodes: "nodes and instances",
    many_instances: "nodes and instances",
    claimed_instances: "nodes and instances",
    many_uses: "triangles drawn",
    many_triangles: "triangles drawn",
    long_strip: "triangles drawn",
    claimed_vertices: "attributes and indices",
    many_vertices: "vertices",
    huge_image: "60000 x 60000 pixels",
}
"""The exceeded limit that each message must name."""


@pytest.mark.parametrize(
    ("inflate", "excess"), TOO_LARGE.items(), ids=[inflate.__name__ for inflate in TOO_LARGE]
)
def test_too_large(
    limited: BlenderProcess, tmp_path: Path, inflate: Callable[[GltfBuilder], None], excess: str
):
    builder = square()
    inflate(builder)
    failure = failure_of(limited, builder.save(tmp_path / "large.glb"))
    assert (failure.kind, excess in str(failure)) == ("too_large", True), str(failure)


@pytest.fixture(scope="module")
def large_texture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a square with a texture of 64 megapixels, in 220 kilobytes."""
    builder = square()
    data = encode_image(np.full((8192, 8192, 3), (200, 20, 20), dtype=np.uint8), compress_level=1)
    assert len(data) < 2_000_000
    material = builder.material(texture=builder.texture(data))
    builder.document["meshes"][0]["primitives"][0]["material"] = material
    return builder.save(tmp_path_factory.mktemp("limits") / "texture.glb")


def test_a_texture_of_64_megapixels_may_be_too_large(limited: BlenderProcess, large_texture: Path):
    failure = failure_of(limited, large_texture)
    assert (failure.kind, "images have more pixels" in str(failure)) == ("too_large", True)


def test_a_texture_of_64_megapixels_is_scaled_down(blender: BlenderProcess, large_texture: Path):
    assert blender.open(large_texture, "cube").num_texture_pixels == 2**26
    views, _ = blender.render([CAMERA], QUICK)
    red, green, blue, alpha = views.rgba[0, 16, 16].astype(int)
    assert (red > green + 100, green - blue, alpha) == (True, 0, 255)


# Invalid files


def own_child(builder: GltfBuilder) -> None:
    builder.document["nodes"][0]["children"] = [0]


def two_in_a_circle(builder: GltfBuilder) -> None:
    builder.node(parent=0)
    builder.document["nodes"][1]["children"] = [0]


def circle_outside_the_scene(builder: GltfBuilder) -> None:
    """Add a cycle with a joint in it."""
    builder.node(root=False, children=[2])
    builder.node(root=False, children=[1])
    builder.document["skins"] = [{"joints": [1]}]
    builder.document["nodes"][0]["skin"] = 0


def infinite_position(builder: GltfBuilder) -> None:
    corners = [[-1, -1, 0], [1, -1, 0], [1, np.inf, 0], [-1, 1, 0]]
    attributes(builder)["POSITION"] = builder.accessor(corners)


def no_number(builder: GltfBuilder) -> None:
    corners = [[-1, -1, 0], [1, -1, 0], [1, np.nan, 0], [-1, 1, 0]]
    attributes(builder)["POSITION"] = builder.accessor(corners)


def sparse_no_number(builder: GltfBuilder) -> None:
    indices = {"bufferView": builder.view(b"\1\0\0\0"), "componentType": 5125}
    values = {"bufferView": builder.view(struct.pack("<fff", 0, 0, float("nan")))}
    accessor = builder.document["accessors"][attributes(builder)["POSITION"]]
    accessor["sparse"] = {"count": 1, "indices": indices, "values": values}


def huge_position(builder: GltfBuilder) -> None:
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * 3e38
    attributes(builder)["POSITION"] = builder.accessor(corners)


def infinite_minimum(builder: GltfBuilder) -> None:
    builder.document["accessors"][0]["min"] = [float("-inf"), 0, 0]


def infinite_matrix(builder: GltfBuilder) -> None:
    builder.document["nodes"][0]["matrix"] = [float("inf"), *np.eye(4).reshape(16).tolist()[1:]]


def matrix_beyond_floats(builder: GltfBuilder) -> None:
    builder.document["nodes"][0]["matrix"] = np.diag([1e39, 1e39, 1, 1]).reshape(16).tolist()


def bind_matrix_without_numbers(builder: GltfBuilder) -> None:
    attributes(builder)["JOINTS_0"] = builder.accessor([[0] * 4] * 4, "|u1")
    attributes(builder)["WEIGHTS_0"] = builder.accessor([[1, 0, 0, 0]] * 4)
    matrices = builder.accessor(np.full((1, 16), np.nan))
    builder.add("skins", {"joints": [builder.node()], "inverseBindMatrices": matrices})
    builder.document["nodes"][0]["skin"] = 0


@pytest.mark.parametrize(
    "spoil",
    [
        own_child,
        two_in_a_circle,
        circle_outside_the_scene,
        infinite_position,
        no_number,
        sparse_no_number,
        infinite_minimum,
        infinite_matrix,
        bind_matrix_without_numbers,
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_malformed_files(
    limited: BlenderProcess, tmp_path: Path, spoil: Callable[[GltfBuilder], None]
):
    """The child and the inspection report the same, because both call the same parser."""
    builder = square()
    spoil(builder)
    path = builder.save(tmp_path / "odd.glb")
    failure = failure_of(limited, path)
    with pytest.raises(GlbError) as inspected:
        inspect_glb(path)
    assert (failure.kind, str(failure)) == (inspected.value.kind, inspected.value.message)
    assert failure.kind == "malformed"


@pytest.mark.parametrize(
    "stretch", [huge_position, matrix_beyond_floats], ids=lambda stretch: stretch.__name__
)
def test_coordinates_beyond_single_precision_are_drawn(
    limited: BlenderProcess, tmp_path: Path, stretch: Callable[[GltfBuilder], None]
):
    """Blender receives only normalised coordinates."""
    builder = square()
    stretch(builder)
    assert limited.open(builder.save(tmp_path / "long.glb"), "cube").num_triangles == 2


@pytest.mark.parametrize("kind", ["objects", "bones"])
def test_deep_trees(tmp_path: Path, kind: str):
    """The importer recurses once per level; depths above Python's recursion limit work."""
    builder = square()
    for _ in range(998):
        builder.node(parent=len(builder.document["nodes"]) - 1)
    if kind == "bones":
        builder.node(mesh=builder.document["nodes"][0].pop("mesh"), skin=0)
        attributes(builder)["JOINTS_0"] = builder.accessor([[0] * 4] * 4, "|u1")
        attributes(builder)["WEIGHTS_0"] = builder.accessor([[1, 0, 0, 0]] * 4)
        builder.add("skins", {"joints": list(range(999))})
    path = builder.save(tmp_path / "deep.glb")
    assert inspect_glb(path, InspectLimits(max_node_depth=1000)).num_triangles == 2
    limits = GlbLimits(max_node_depth=1000)
    with BlenderProcess(BlenderLimits(), glb_limits=limits) as process:
        assert process.open(path, "cube").num_triangles == 2
        process.render([CAMERA], QUICK)
    with pytest.raises(GlbError, match="deeper than the limit of 256"):
        inspect_glb(path)


def test_json_text_is_no_way_to_other_files(limited: BlenderProcess, tmp_path: Path):
    """The importer would read such text as a glTF file with external buffers."""
    path = tmp_path / "text.glb"
    path.write_text('{"asset": {"version": "2.0"}, "buffers": [{"uri": "/etc/passwd"}]}')
    failure = failure_of(limited, path)
    assert (failure.kind, "not a GLB" in str(failure)) == ("malformed", True)


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b"[]", b"\xff\xfe{}", b'{"asset": 1e', b"5", b""], ids=repr
)
def test_invalid_json_documents_are_malformed(limited: BlenderProcess, tmp_path: Path, text: bytes):
    text += b" " * (-len(text) % 4)
    path = tmp_path / "text.glb"
    head = struct.pack("<4sII", b"glTF", 2, 20 + len(text))
    path.write_bytes(head + struct.pack("<I4s", len(text), b"JSON") + text)
    assert failure_of(limited, path).kind == "malformed"


ODD_VALUES: list[Any] = [None, "x", -1, 10**30, 1.5, [], {}, [[]], [7, 7, 7], {"index": []}]


def textured() -> GltfBuilder:
    """Return a square with textures, extensions and a level of detail."""
    builder = GltfBuilder()
    info = {"index": builder.texture(np.full((4, 4, 3), 128))}
    shift = {"extensions": {"KHR_texture_transform": {"offset": [0.0, 0.0]}}}
    extensions = {"KHR_materials_transmission": {"transmissionTexture": dict(info)}}
    builder.material(
        texture=info["index"],
        normalTexture=info | shift,
        emissiveFactor=[0.5, 0.5, 0.5],
        extensions=extensions,
    )
    builder.node(mesh=builder.quad(0), extensions={"MSFT_lod": {"ids": []}})
    return builder


def document_paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path (keys and indices) of every part of a document."""
    if path:
        yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(part, dict | list):
            yield from document_paths(part, (*path, key))
        else:
            yield *path, key


def test_no_odd_value_anywhere_ends_the_child(limited: BlenderProcess, tmp_path: Path):
    """One value at a time is replaced: a list for an object, text for a number, a huge number."""
    random = np.random.default_rng(0)
    paths = list(document_paths(textured().document))
    assert len(paths) > 100
    pid = None
    for path in paths:
        builder = textured()
        part: Any = builder.document
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = ODD_VALUES[random.integers(len(ODD_VALUES))]
        glb = builder.save(tmp_path / "odd.glb", used=["KHR_texture_transform"])
        try:
            limited.open(glb, "cube")
        except RenderFailure as failure:
            assert failure.kind in HEALTHY_KINDS, (path, part[path[-1]], str(failure))
            assert "\n" not in str(failure)
        assert pid in (None, limited.pid)
        pid = limited.pid


# Draco

COMPRESS = """
import os, sys
import bpy
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.mesh.primitive_grid_add(x_subdivisions=50, y_subdivisions=50, size=2)
bpy.ops.export_scene.gltf(
    filepath=sys.argv[1],
    export_format="GLB",
    export_texcoords=False,
    export_draco_mesh_compression_enable=True,
)
sys.stdout.flush()
os._exit(0)  # bpy hangs in the interpreter's clean-up at exit
"""


@pytest.fixture(scope="module")
def draco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 5,000 triangles in a few kilobytes; in two megabytes there would be five million."""
    path = tmp_path_factory.mktemp("draco") / "grid.glb"
    run_script(COMPRESS, path).check_returncode()
    assert path.stat().st_size < 10_000
    return path


def copy(path: Path, to: Path) -> Path:
    to.write_bytes(path.read_bytes())
    return to


def claim_little(document: dict[str, Any]) -> None:
    for accessor in document["accessors"]:
        accessor["count"] = 3


def test_a_draco_mesh_is_decoded(blender: BlenderProcess, draco: Path):
    assert blender.open(draco, "cube").num_triangles == 5000
    views, _ = blender.render([look_down()], QUICK)
    np.testing.assert_allclose(views.depth[0, 8:24, 8:24], 3, atol=2e-3)


def look_down() -> Camera:
    eye = np.array([0, 0, 3.0])
    to_world = look_at(eye, up=(0.0, 1.0, 0.0))
    return Camera(camera_to_world=to_world, intrinsics=intrinsics_from_fov(50))


def test_compressed_triangles_count(limited: BlenderProcess, draco: Path):
    failure = failure_of(limited, draco)
    assert (failure.kind, "5000 triangles" in str(failure)) == ("too_large", True)


def test_compressed_triangles_count_whatever_the_document_claims(
    limited: BlenderProcess, draco: Path, tmp_path: Path
):
    failure = failure_of(limited, edit_glb(copy(draco, tmp_path / "lie.glb"), claim_little))
    assert (failure.kind, "5000 triangles" in str(failure)) == ("too_large", True)


def test_triangles_that_only_the_decoder_sees_count_too(
    limited: BlenderProcess, draco: Path, tmp_path: Path
):
    """Empty metadata hides the count in the header, so the limit applies after decoding."""
    data = draco.read_bytes()
    start = data.index(b"DRACO")
    head = data[start : start + 9] + struct.pack("<H", 0x8000) + b"\0\0\0"
    before, after = data[: start - 8], data[start + 11 :]
    compressed = head + after
    compressed += b"\0" * (-len(compressed) % 4)
    assert data[start - 4 : start] == b"BIN\0"
    body = before + struct.pack("<I4s", len(compressed), b"BIN\0") + compressed
    path = tmp_path / "hidden.glb"
    path.write_bytes(body[:8] + struct.pack("<I", len(body)) + body[12:])

    def longer(document: dict[str, Any]) -> None:
        claim_little(document)
        document["bufferViews"][0]["byteLength"] += 3
        document["buffers"][0]["byteLength"] = len(compressed)

    failure = failure_of(limited, edit_glb(path, longer))
    reason = "the scene has more than the limit of 4000 triangles"
    assert (failure.kind, str(failure)) == ("too_large", reason)


@pytest.mark.parametrize("offset", [20, 500])
def test_a_draco_mesh_that_cannot_be_decoded_is_an_import_error(
    blender: BlenderProcess, draco: Path, tmp_path: Path, offset: int
):
    """Blender itself would import the object without this mesh."""
    data = bytearray(draco.read_bytes())
    data[data.index(b"DRACO") + offset] ^= 0x55
    path = tmp_path / "broken.glb"
    path.write_bytes(data)
    failure = failure_of(blender, path)
    assert (failure.kind, "Draco" in str(failure)) == ("import_error", True)
