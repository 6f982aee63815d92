"""Views survive their encoding to the stated precision."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from core.errors import WorkFailed
from dataset.cameras import Camera, intrinsics_from_fov, look_at
from dataset.format.encoding import (
    decode_depth,
    decode_normal,
    decode_rgba,
    encode_depth,
    encode_normal,
    encode_rgba,
    largest_depth,
)
from dataset.views import (
    META_MEMBER,
    SAMPLE_FORMAT,
    decode_views,
    depth_scale_for,
    encode_meta,
    encode_view,
    encode_views,
    view_member,
)
from render.rigs import RIGS
from tests.support.paths import REPOSITORY
from tests.support.sphere_datasets import sphere_views

PAGE = REPOSITORY / "docs/reference/dataset-format.md"
SCALE = 2**-12
SIZES = array_shapes(min_dims=2, max_dims=2, max_side=9)
DEGREES = 0.65


def degrees_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the angles between unit vectors, from the chord, which is precise for small angles."""
    chord = np.linalg.norm(a.astype(float) - b.astype(float), axis=-1)
    return np.degrees(2 * np.arcsin(np.clip(chord / 2, 0, 1)))


def camera_at(distance: float) -> Camera:
    return Camera(
        camera_to_world=look_at(np.array([0.6, 0, 0.8]) * distance),
        intrinsics=intrinsics_from_fov(50),
    )


def test_a_round_trip_is_exact_to_the_stated_precision():
    views = sphere_views(3)
    decoded, meta = decode_views(dict(encode_views(views, {"rig": "test"})))
    np.testing.assert_array_equal(decoded.rgba, views.rgba)
    assert meta["depth_scale"] == SCALE
    assert np.abs(decoded.depth - views.depth).max() <= SCALE / 2
    assert ((decoded.depth == 0) == (views.depth == 0)).all()
    assert (decoded.normals.any(axis=-1) == views.normals.any(axis=-1)).all()
    assert degrees_between(decoded.normals, views.normals).max() < DEGREES
    assert meta["rig"] == "test"
    for a, b in zip(decoded.cameras, views.cameras, strict=True):
        np.testing.assert_array_equal(a.camera_to_world, b.camera_to_world)
        np.testing.assert_array_equal(a.intrinsics, b.intrinsics)


@given(SIZES.flatmap(lambda size: arrays(np.uint8, (*size, 4))))
def test_colour_is_exact_also_under_zero_alpha(rgba):
    np.testing.assert_array_equal(decode_rgba(encode_rgba(rgba)), rgba)


@given(SIZES.flatmap(lambda size: arrays(np.uint16, size)), st.sampled_from([SCALE, 2**-9]))
def test_every_level_of_depth_survives(levels, scale):
    depth = levels.astype(np.float32) * np.float32(scale)
    np.testing.assert_array_equal(decode_depth(encode_depth(depth, scale), scale), depth)


@given(
    SIZES.flatmap(
        lambda size: arrays(np.float32, size, elements=st.floats(0, largest_depth(SCALE), width=32))
    )
)
def test_depth_is_exact_to_half_a_step_and_only_background_becomes_zero(depth):
    decoded = decode_depth(encode_depth(depth, SCALE), SCALE)
    assert ((decoded == 0) == (depth == 0)).all()
    assert np.abs(decoded - depth)[depth >= SCALE / 2].max(initial=0) <= SCALE / 2
    assert (decoded[(depth > 0) & (depth < SCALE / 2)] == SCALE).all()


@pytest.mark.parametrize("wrong", [-1e-3, 65536 * SCALE, np.inf, np.nan])
def test_depth_out_of_range_is_an_error_that_names_the_view(wrong):
    views = sphere_views(1, num_views=2, size=8)
    depth = views.depth.copy()
    depth[1, 2, 3] = wrong
    with pytest.raises(WorkFailed, match=r"view 1 .* between 0 and 15\.9998"):
        dict(encode_views(replace(views, depth=depth), {}))


@given(
    arrays(np.float32, (5, 7, 3), elements=st.floats(-1, 1, width=32)),
    arrays(np.bool_, (5, 7)),
)
def test_normals_are_exact_to_the_stated_angle_and_background_stays_zero(vectors, hit):
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    hit &= length[..., 0] > 1e-3
    normals = np.where(hit[..., None], vectors / np.maximum(length, 1e-3), 0).astype(np.float32)
    decoded = decode_normal(encode_normal(normals))
    assert (decoded.any(axis=-1) == hit).all()
    assert degrees_between(decoded, normals).max() < DEGREES
    np.testing.assert_allclose(np.linalg.norm(decoded[hit], axis=-1), 1, atol=1e-6)


def test_normals_all_over_the_sphere_are_within_the_stated_angles():
    vectors = np.random.default_rng(0).normal(size=(512, 512, 3))
    vectors[0, :27] = np.indices((3, 3, 3)).reshape(3, 27).T - 1  # axes, diagonals, and zero
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    normals = (vectors / np.maximum(length, 1e-9)).astype(np.float32)
    angles = degrees_between(decode_normal(encode_normal(normals)), normals)
    assert angles.max() < DEGREES
    assert angles.mean() < 0.32
    assert angles[0, [4, 10, 12, 14, 16, 22]].max() < 1e-3  # the axes themselves are exact


def test_normals_that_are_not_finite_are_an_error():
    normals = np.zeros((4, 4, 3), np.float32)
    normals[1, 2, 0] = np.nan
    with pytest.raises(WorkFailed, match=r"view 7 .*not finite"):
        dict(encode_view(7, np.zeros((4, 4, 4), np.uint8), normals[..., 1], normals, SCALE))


def test_a_view_of_only_background_is_small_and_survives():
    depth, normals = np.zeros((512, 512), np.float32), np.zeros((512, 512, 3), np.float32)
    rgba = np.zeros((512, 512, 4), np.uint8)
    members = dict(encode_view(0, rgba, depth, normals, SCALE))
    assert sum(map(len, members.values())) < 500
    assert not decode_rgba(members[view_member(0, "rgba")]).any()
    assert not decode_depth(members[view_member(0, "depth")], SCALE).any()
    assert not decode_normal(members[view_member(0, "normal")]).any()


@pytest.mark.parametrize("rig", RIGS.values(), ids=lambda rig: rig.name)
def test_every_rig_has_the_finest_scale(rig):
    assert depth_scale_for(rig.cameras("objaverse:any")) == SCALE


def test_the_scale_grows_with_the_farthest_camera():
    assert depth_scale_for([camera_at(14.2), camera_at(2)]) == SCALE
    assert depth_scale_for([camera_at(2), camera_at(14.4)]) == 2 * SCALE
    far = depth_scale_for([camera_at(1000)])
    assert 1002 < largest_depth(far) < 2 * 1002


def test_members_can_be_encoded_view_by_view():
    """A renderer encodes a view while the next one renders."""
    views = sphere_views(2, num_views=2)
    scale = depth_scale_for(views.cameras)
    members = dict([encode_meta(views.cameras, 64, 64, scale, {"rig": "test"})])
    for view in (1, 0):
        images = views.rgba[view], views.depth[view], views.normals[view]
        members |= dict(encode_view(view, *images, scale))
    assert members == dict(encode_views(views, {"rig": "test"}))


def test_members_are_ordered_by_view_and_equal_views_give_equal_bytes():
    first, second = (list(encode_views(sphere_views(2, num_views=2), {})) for _ in range(2))
    assert first == second
    images = sorted(name for name, _ in first)[:6]
    assert [name[:3] for name in images] == ["000"] * 3 + ["001"] * 3


def test_metadata_cannot_replace_the_fields_that_decoding_needs():
    meta = {"format": 0, "views": [], "depth_scale": 7, "licence": "by"}
    views = sphere_views(2, num_views=2)
    decoded, decoded_meta = decode_views(dict(encode_views(views, meta)))
    assert decoded_meta["licence"] == "by"
    assert len(decoded.cameras) == 2


def test_a_missing_member_is_named():
    members = dict(encode_views(sphere_views(2, num_views=2), {}))
    del members[view_member(1, "depth")]
    with pytest.raises(WorkFailed, match=r"001\.depth\.webp"):
        decode_views(members)


@pytest.mark.parametrize("kind", ["rgba", "depth", "normal"])
@pytest.mark.parametrize("damage", [b"", b"GIF89a", slice(100), slice(200)])
def test_a_damaged_image_is_an_error(kind, damage):
    members = dict(encode_views(sphere_views(2, num_views=1), {}))
    name = view_member(0, kind)
    members[name] = members[name][damage] if isinstance(damage, slice) else damage
    with pytest.raises(WorkFailed, match="cannot be decoded"):
        decode_views(members)


@pytest.mark.parametrize("version", [1, SAMPLE_FORMAT + 1])
def test_another_format_is_an_error_in_one_line(version):
    members = dict(encode_views(sphere_views(2, num_views=1), {"asset_id": "objaverse:x"}))
    header = json.loads(members[META_MEMBER]) | {"format": version}
    members[META_MEMBER] = json.dumps(header).encode()
    with pytest.raises(WorkFailed, match=rf"^objaverse:x: sample format {version}, .* again$"):
        decode_views(members)


def test_the_example_reader_on_the_page_reads_a_sample(tmp_path: Path, monkeypatch):
    views = sphere_views(5, num_views=1)
    members = dict(encode_views(views, {}))
    for name, data in members.items():
        (tmp_path / name).write_bytes(data)
    (block,) = re.findall(r"```python\n((?:(?!```).)*?Image.*?)```", PAGE.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, np.ndarray] = {}
    exec(compile(block, str(PAGE), "exec"), namespace)
    decoded, _ = decode_views(members)
    np.testing.assert_array_equal(namespace["depth"].astype(np.float32), decoded.depth[0])
    np.testing.assert_allclose(namespace["normal"], decoded.normals[0], atol=1e-6)
