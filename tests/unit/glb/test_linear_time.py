"""Reading a file takes time linear in its size, whatever its parts share."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from glb.glb_error import GlbError
from glb.limits import GlbLimits
from glb.parse import read_glb
from tests.support.gltf_builder import GltfBuilder
from tests.support.small_glbs import pack_glb, pack_scene, textured_square

SQUARE, BINARY = textured_square()
PART = SQUARE["meshes"][0]["primitives"][0]
MESHOPT = "EXT_meshopt_compression"
INDICES = b"\xd1\0\0\0\0"
"""No index, compressed: the header and the tail."""


def many_nodes(size: int, **mesh: Any) -> bytes:
    """Return a file whose nodes all have the same mesh."""
    nodes = [{"mesh": 0}] * size
    scenes = [{"nodes": list(range(size))}]
    return pack_glb(SQUARE | {"nodes": nodes, "scenes": scenes, "meshes": [mesh]}, BINARY)


def nodes_of_many_primitives(size: int) -> bytes:
    points = [{"attributes": {"POSITION": 0}, "mode": 0}] * size
    return many_nodes(size, primitives=[PART, *points])


def nodes_of_many_weights(size: int) -> bytes:
    part = PART | {"targets": [{"POSITION": 0}]}
    return many_nodes(size, primitives=[part], weights=[0.5] * size)


def many_normal_maps(images: list[dict[str, Any]], size: int, **more: Any) -> dict[str, Any]:
    """Return the square with `size` materials; their normal maps take turns at the images."""
    textures = [{"source": 1 + index % len(images)} for index in range(size)]
    materials = [{"normalTexture": {"index": 1 + index}} for index in range(size)]
    parts = [PART | {"material": 1 + index} for index in range(size)]
    return (
        SQUARE
        | {"images": [*SQUARE["images"], *images], "textures": [*SQUARE["textures"], *textures]}
        | {"materials": [*SQUARE["materials"], *materials], "meshes": [{"primitives": parts}]}
        | more
    )


def external_images(size: int) -> bytes:
    images = [{"uri": f"{index}.png"} for index in range(size)]
    return pack_glb(many_normal_maps(images, size), BINARY)


def textures_of_an_invalid_data_uri(size: int) -> bytes:
    images = [{"uri": "data:image/png;base64," + "A" * (1600 * size + 1)}]
    return pack_glb(many_normal_maps(images, size), BINARY)


def images_of_an_invalid_buffer(size: int) -> bytes:
    invalid = {"uri": "data:;base64," + "A" * (1600 * size + 1), "byteLength": 8}
    views = [*SQUARE["bufferViews"], {"buffer": 1, "byteLength": 8}]
    more = {"buffers": [*SQUARE["buffers"], invalid], "bufferViews": views}
    return pack_glb(many_normal_maps([{"bufferView": 4}] * size, size, **more), BINARY)


def compressed(count: int, offset: int, length: int) -> dict[str, Any]:
    """Return a view of `count` indices that are only in the file as compressed bytes."""
    source = {"buffer": 0, "byteOffset": offset, "byteLength": length}
    values = source | {"byteStride": 4, "count": count, "mode": "INDICES"}
    view = {"buffer": 0, "byteOffset": 1 << 30, "byteLength": 4 * count}
    return view | {"extensions": {MESHOPT: values}}


def with_compressed(document: dict[str, Any], views: list[dict[str, Any]], data: bytes) -> bytes:
    more = {"bufferViews": [*SQUARE["bufferViews"], *views]}
    buffers = {"buffers": [{"byteLength": len(BINARY) + len(data)}]}
    return pack_glb(document | more | buffers, BINARY + data)


def many_compressed_views(size: int) -> bytes:
    views = [compressed(0, len(BINARY), len(INDICES))] * size
    empty = [{"bufferView": 4 + index, "count": 0} for index in range(size)]
    accessors = [item | {"componentType": 5125, "type": "SCALAR"} for item in empty]
    parts = [PART | {"indices": 3 + index} for index in range(size)]
    document = SQUARE | {"accessors": [*SQUARE["accessors"], *accessors]}
    return with_compressed(document | {"meshes": [{"primitives": [PART, *parts]}]}, views, INDICES)


def images_of_an_invalid_compressed_view(size: int) -> bytes:
    """Return a file with a stream that is invalid only at its end."""
    data = INDICES[:1] + bytes(600 * size) + INDICES[1:] + b"\1"
    view = compressed(600 * size, len(BINARY), len(data))
    document = many_normal_maps([{"bufferView": 4}] * size, size)
    return with_compressed(document, [view], data)


def skins_of_many_bind_matrices(size: int) -> bytes:
    """Return a file whose accessors of bind matrices overlap, for skins of one joint."""
    builder = GltfBuilder()
    attributes = {
        "POSITION": builder.accessor(np.eye(3)),
        "JOINTS_0": builder.accessor(np.zeros((3, 4)), "|u1"),
        "WEIGHTS_0": builder.accessor(np.ones((3, 4))),
    }
    mesh = builder.add("meshes", {"primitives": [{"attributes": attributes}]})
    first = builder.accessor(np.tile(np.eye(4).reshape(16), (200 * size, 1)))
    joint = builder.node()
    for _ in range(size):
        matrices = builder.add("accessors", dict(builder.document["accessors"][first]))
        skin = builder.add("skins", {"joints": [joint], "inverseBindMatrices": matrices})
        builder.node(mesh=mesh, skin=skin)
    return pack_scene(builder)


def hidden_children_listed_twice(size: int) -> bytes:
    hidden = {"KHR_node_visibility": {"visible": False}, "MSFT_lod": {"ids": "none"}}
    below = [{"extensions": hidden, "children": [index, index]} for index in range(2, 2 + size)]
    nodes = [{"mesh": 0}, *below, {}]
    scenes = [{"nodes": list(range(len(nodes)))}]
    return pack_glb(SQUARE | {"nodes": nodes, "scenes": scenes}, BINARY)


def seconds(data: bytes) -> float:
    """Return the time in which the parser reads a file: the shorter of two."""
    times = []
    for _ in range(2):
        started = time.process_time()
        read_glb(data, GlbLimits())
        times.append(time.process_time() - started)
    return min(times)


@pytest.mark.parametrize(
    ("build", "size"),
    [
        (nodes_of_many_primitives, 600),
        (nodes_of_many_weights, 400),
        (external_images, 400),
        (textures_of_an_invalid_data_uri, 200),
        (images_of_an_invalid_buffer, 200),
        (many_compressed_views, 2000),
        (images_of_an_invalid_compressed_view, 200),
        (skins_of_many_bind_matrices, 200),
        (hidden_children_listed_twice, 500),
    ],
)
def test_a_file_of_four_times_the_size_takes_about_four_times_as_long(
    build: Callable[[int], bytes], size: int
) -> None:
    """Quadratic time would be 16 times as long."""
    assert seconds(build(4 * size)) < 6 * seconds(build(size)) + 0.01


def test_compressed_views_may_not_overlap() -> None:
    """Each would be decoded from the same bytes."""
    data = INDICES[:1] + bytes(1000) + INDICES[1:]
    views = [compressed(1000, len(BINARY), len(data))] * 100
    accessors = [
        {"bufferView": 4 + index, "componentType": 5125, "type": "SCALAR", "count": 999}
        for index in range(len(views))
    ]
    parts = [PART | {"indices": 3 + index} for index in range(len(views))]
    document = SQUARE | {"accessors": [*SQUARE["accessors"], *accessors]}
    document |= {"meshes": [{"primitives": parts}]}
    with pytest.raises(GlbError, match="compressed buffer views overlap"):
        read_glb(with_compressed(document, views, data), GlbLimits())
