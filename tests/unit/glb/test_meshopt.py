"""Compressed buffer views are decoded as meshoptimizer decodes them, or rejected."""

import base64
import dataclasses
import time
from typing import Any

import meshopt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.inspect_glb import inspect_glb
from glb.decoders.meshopt import decode_meshopt
from glb.glb_error import GlbError
from glb.limits import GlbLimits
from glb.parse import read_glb
from tests.support.compressed_views import compress_views, encode_view
from tests.support.small_glbs import pack_glb, skinned_square, textured_square

NAMES = ["EXT_meshopt_compression", "KHR_meshopt_compression"]
DOCUMENT, BINARY = textured_square()
quick = settings(max_examples=100, deadline=None)


def decode(data: bytes, count: int, stride: int, mode: str, filter_name: str = "NONE") -> bytes:
    view = decode_meshopt(
        memoryview(data), count=count, stride=stride, mode=mode, filter_name=filter_name
    )
    return bytes(view)


def elements(seed: int, count: int, stride: int) -> np.ndarray:
    """Return elements (count, stride) of smooth and noisy bytes, so that all codings occur."""
    rng = np.random.default_rng(seed)
    scale = rng.integers(1, 300)
    channels = np.cumsum(rng.integers(-scale, scale + 1, (count, stride // 4)), axis=0)
    floats = np.cumsum(rng.normal(size=(count, stride // 4)), axis=0).astype("<f4").view("<u4")
    values = np.where(rng.random(stride // 4) < 0.5, channels.astype("<u4"), floats)
    values[:, rng.random(stride // 4) < 0.2] = 7
    bytes_ = np.ascontiguousarray(values).view(np.uint8).reshape(count, stride)
    noisy = rng.random(stride) < 0.2
    bytes_[:, noisy] = rng.integers(0, 256, (count, int(noisy.sum())))
    return bytes_


@quick
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 700),
    channels=st.integers(1, 8) | st.sampled_from([16, 63, 64]),
    level=st.integers(0, 3),
    version=st.integers(0, 1),
)
def test_attributes_are_the_encoded_ones(
    seed: int, count: int, channels: int, level: int, version: int
) -> None:
    stored = elements(seed, count, 4 * channels)
    data = meshopt.encode_vertex_buffer_level(stored, level, version)
    assert decode(data, count, 4 * channels, "ATTRIBUTES") == stored.tobytes()


@quick
@given(
    st.lists(st.integers(0, 2**29) | st.integers(0, 20), min_size=3, max_size=300),
    st.sampled_from([2, 4]),
)
def test_indices_are_those_of_the_reference(values: list[int], stride: int) -> None:
    indices = np.array(values[: len(values) // 3 * 3], np.uint32)
    for mode in ("TRIANGLES", "INDICES"):
        data = meshopt.encode_gltf_buffer(indices, mode)
        expected = meshopt.decode_gltf_buffer(data, len(indices), stride, mode)
        assert decode(data, len(indices), stride, mode) == expected.tobytes()


def grid(side: int) -> np.ndarray:
    """Return the indices of a grid of squares in an order that encoders produce."""
    corner = np.arange(side * side, dtype=np.uint32).reshape(side, side)
    a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]
    indices, _, _ = meshopt.reorder_mesh(np.stack([a, b, c, a, c, d], -1).ravel(), True, False)
    return indices


def test_a_large_mesh_is_decoded_quickly() -> None:
    count = 170_000
    stored = elements(1, count, 8)
    indices = grid(300)
    streams = [meshopt.encode_vertex_buffer_level(stored, 2, version) for version in (0, 1)]
    triangles = meshopt.encode_index_buffer(indices)
    sequence = meshopt.encode_index_sequence(indices)
    started = time.process_time()
    decoded = [decode(stream, count, 8, "ATTRIBUTES") for stream in streams]
    corners = decode(triangles, len(indices), 4, "TRIANGLES")
    same = decode(sequence, len(indices), 4, "INDICES")
    assert time.process_time() - started < 1.5
    assert decoded == [stored.tobytes()] * 2
    assert corners == meshopt.decode_gltf_buffer(triangles, len(indices), 4, "TRIANGLES").tobytes()
    assert same == indices.tobytes()


def vectors(width: int) -> np.ndarray:
    values = np.random.default_rng(5).normal(size=(999, 4))
    values[:3] = np.eye(4)[:3]
    values /= np.linalg.norm(values[:, :width], axis=1, keepdims=True)
    if width == 3:
        values[:, 3] = np.sign(values[:, 3])
    return values


@pytest.mark.parametrize(
    ("name", "encode", "values", "stride", "dtype"),
    [
        ("OCTAHEDRAL", meshopt.encode_filter_oct, vectors(3), 4, "i1"),
        ("OCTAHEDRAL", meshopt.encode_filter_oct, vectors(3), 8, "<i2"),
        ("QUATERNION", meshopt.encode_filter_quat, vectors(4), 8, "<i2"),
        ("COLOR", meshopt.encode_filter_color, abs(vectors(4)), 4, "u1"),
        ("COLOR", meshopt.encode_filter_color, abs(vectors(4)), 8, "<u2"),
    ],
)
def test_filters_differ_from_the_reference_by_one_at_most(
    name: str, encode: Any, values: np.ndarray, stride: int, dtype: str
) -> None:
    for bits in range(4, 2 * stride + 1) if stride == 4 else range(4, 17):
        data = meshopt.encode_vertex_buffer(encode(values, stride, bits))
        expected = meshopt.decode_gltf_buffer(data, len(values), stride, "ATTRIBUTES", name)
        decoded = np.frombuffer(decode(data, len(values), stride, "ATTRIBUTES", name), dtype)
        error = decoded.astype(int) - expected.view(dtype).reshape(-1)
        assert abs(error).max() <= 1


@pytest.mark.parametrize("bits", [1, 12, 24])
def test_the_exponential_filter_is_exact(bits: int) -> None:
    values = np.random.default_rng(2).normal(size=(500, 3)) * [1e-6, 1, 1e6]
    data = meshopt.encode_vertex_buffer(meshopt.encode_filter_exp(values, bits))
    expected = meshopt.decode_gltf_buffer(data, 500, 12, "ATTRIBUTES", "EXPONENTIAL")
    assert decode(data, 500, 12, "ATTRIBUTES", "EXPONENTIAL") == expected.tobytes()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["OCTAHEDRAL", "QUATERNION", "EXPONENTIAL", "COLOR"])
def test_filters_accept_any_bytes(name: str) -> None:
    stored = np.random.default_rng(3).integers(0, 256, (4096, 8), dtype=np.uint8)
    stored[:100] = 0
    data = meshopt.encode_vertex_buffer(stored)
    assert len(decode(data, 4096, 8, "ATTRIBUTES", name)) == 8 * 4096


STREAMS = [
    (meshopt.encode_vertex_buffer_level(elements(4, 70, 12), 2, 0), 70, 12, "ATTRIBUTES"),
    (meshopt.encode_vertex_buffer_level(elements(4, 70, 12), 3, 1), 70, 12, "ATTRIBUTES"),
    (meshopt.encode_index_buffer(grid(6)), 150, 4, "TRIANGLES"),
    (meshopt.encode_index_sequence(grid(6)), 150, 4, "INDICES"),
]


@pytest.mark.parametrize(
    ("data", "count", "stride", "mode"), STREAMS, ids=["v0", "v1", "triangles", "indices"]
)
def test_a_damaged_stream_is_rejected_or_decoded_as_the_reference_decodes_it(
    data: bytes, count: int, stride: int, mode: str
) -> None:
    rng = np.random.default_rng(6)
    accepted = 0
    for _ in range(300):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[at] = rng.integers(0, 256)
        if rng.random() < 0.3:
            del damaged[rng.integers(0, len(data)) :]
        try:
            decoded = decode(bytes(damaged), count, stride, mode)
        except GlbError as error:
            assert error.kind == "malformed"
            continue
        accepted += 1
        expected = meshopt.decode_gltf_buffer(bytes(damaged), count, stride, mode)
        assert decoded == expected.tobytes()
    assert 0 < accepted < 300


@pytest.mark.parametrize(
    ("count", "stride", "mode", "filter_name"),
    [
        (70, 12, "ATTRIBUTES", "OCTAHEDRAL"),
        (70, 12, "ATTRIBUTES", "QUATERNION"),
        (70, 12, "ATTRIBUTES", "COLOR"),
        (70, 12, "ATTRIBUTES", "SQUARE"),
        (70, 10, "ATTRIBUTES", "NONE"),
        (70, 0, "ATTRIBUTES", "NONE"),
        (70, 260, "ATTRIBUTES", "NONE"),
        (33, 12, "ATTRIBUTES", "NONE"),
        (300, 12, "ATTRIBUTES", "NONE"),
        (70, 12, "POINTS", "NONE"),
        (70, 12, "TRIANGLES", "NONE"),
        (70, 4, "TRIANGLES", "NONE"),
        (69, 4, "TRIANGLES", "EXPONENTIAL"),
        (70, 1, "INDICES", "NONE"),
        (70, 4, "INDICES", "NONE"),
    ],
)
def test_what_the_specification_excludes_is_malformed(
    count: int, stride: int, mode: str, filter_name: str
) -> None:
    with pytest.raises(GlbError) as caught:
        decode(STREAMS[0][0], count, stride, mode, filter_name)
    assert caught.value.kind == "malformed"


# Whole files


def scene() -> tuple[dict[str, Any], bytes]:
    builder = skinned_square()
    joints = builder.document["meshes"][0]["primitives"][0]["attributes"]["JOINTS_0"]
    assert builder.document["accessors"][joints]["componentType"] == 5121
    return builder.document | {"buffers": [{"byteLength": len(builder.binary)}]}, builder.binary


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("plain", [(DOCUMENT, BINARY), scene()], ids=["square", "skinned"])
def test_a_compressed_file_measures_as_the_plain_one(
    plain: tuple[dict[str, Any], bytes], name: str
) -> None:
    expected = inspect_glb(pack_glb(*plain))
    data = pack_glb(*compress_views(*plain, name))
    compressed = inspect_glb(data)
    same = {"num_bytes": expected.num_bytes, "extensions_used": (), "extensions_required": ()}
    assert dataclasses.replace(compressed, **same) == dataclasses.replace(expected, **same)
    document = read_glb(data, GlbLimits()).document
    for index, view in enumerate(plain[0]["bufferViews"]):
        start = view["byteOffset"]
        assert document.view(index) == plain[1][start : start + view["byteLength"]]


def test_the_plain_bytes_are_used_if_the_file_has_them() -> None:
    """The compressed ones, which are broken here, are then not needed."""
    document, binary = compress_views(DOCUMENT, BINARY)
    uri = "data:application/octet-stream;base64," + base64.b64encode(BINARY).decode()
    document["buffers"][1]["uri"] = uri
    for view in document["bufferViews"]:
        for compressed in view.get("extensions", {}).values():
            compressed["mode"] = "BROKEN"
    assert inspect_glb(pack_glb(document, binary)).num_triangles == 2


def error_of(document: dict[str, Any], binary: bytes, limits: GlbLimits | None = None) -> GlbError:
    with pytest.raises(GlbError) as caught:
        read_glb(pack_glb(document, binary), limits or GlbLimits())
    return caught.value


@pytest.mark.parametrize(
    "change",
    [
        {"count": 5},
        {"byteStride": 16},
        {"byteLength": 7},
        {"byteOffset": 10**6},
        {"byteLength": 10**9},
        {"buffer": 1},
        {"buffer": 2},
        {"mode": 7},
        {"mode": None},
        {"filter": "SQUARE"},
    ],
    ids=str,
)
def test_a_compressed_view_that_is_wrong_is_malformed(change: dict[str, Any]) -> None:
    document, binary = compress_views(DOCUMENT, BINARY)
    document["bufferViews"][0]["extensions"]["EXT_meshopt_compression"] |= change
    assert error_of(document, binary).kind == "malformed"


def replaced(view: int, data: bytes, stride: int, mode: str) -> tuple[dict[str, Any], bytes]:
    """Return the compressed square with other bytes in one of its buffer views."""
    document, binary = compress_views(DOCUMENT, BINARY)
    encoded = encode_view(data, stride, mode)
    document["bufferViews"][view]["extensions"]["EXT_meshopt_compression"] |= {
        "byteOffset": len(binary),
        "byteLength": len(encoded),
    }
    return document, binary + encoded


def test_decoded_values_are_checked_like_any_others() -> None:
    """Streams of valid form may contain any index and any float."""
    beyond = np.array([0, 1, 2, 0, 2, 9], "<u2").tobytes()
    assert "out of range" in error_of(*replaced(2, beyond, 2, "TRIANGLES")).message
    positions = np.zeros((4, 3), "<f4")
    positions[2, 1] = np.nan
    assert "not finite" in error_of(*replaced(0, positions.tobytes(), 12, "ATTRIBUTES")).message


def test_decoded_bytes_are_limited_before_they_are_decoded() -> None:
    document, binary = compress_views(DOCUMENT, BINARY)
    size = 1 << 40
    view = document["bufferViews"][0]
    view["byteLength"] = size
    view["extensions"]["EXT_meshopt_compression"] |= {"count": size // 256, "byteStride": 256}
    assert error_of(document, binary).kind == "too_large"
    document, binary = compress_views(DOCUMENT, BINARY)
    assert error_of(document, binary, GlbLimits(max_elements=3)).kind == "too_large"
