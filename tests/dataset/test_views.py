"""Views survive their encoding to the stated precision."""

import numpy as np
import pytest

from dataset.errors import WorkFailed
from dataset.views import ViewSet, decode_views, encode_views, view_member
from tests.conftest import sphere_views


def test_round_trip_is_exact_to_the_stated_precision():
    views = sphere_views(3)
    back, meta = decode_views(dict(encode_views(views, {"rig": "test"})))
    np.testing.assert_array_equal(back.rgba, views.rgba)
    assert np.abs(back.depth - views.depth).max() <= meta["depth_scale"] * 0.51
    assert np.abs(back.normals - views.normals).max() < 1.5 / 127.5
    assert ((back.depth == 0) == (views.depth == 0)).all()
    assert meta["rig"] == "test"
    for a, b in zip(back.cameras, views.cameras, strict=True):
        np.testing.assert_array_equal(a.camera_to_world, b.camera_to_world)
        np.testing.assert_array_equal(a.intrinsics, b.intrinsics)


def test_colour_under_zero_alpha_is_kept():
    views = sphere_views(1, num_views=1, size=8)
    rgba = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 4), dtype=np.uint8)
    rgba[..., 3] = 0
    noisy = ViewSet(cameras=views.cameras, rgba=rgba, depth=views.depth, normals=views.normals)
    np.testing.assert_array_equal(decode_views(dict(encode_views(noisy, {})))[0].rgba, rgba)


def test_members_come_view_by_view_and_equal_views_give_equal_bytes():
    first, second = (list(encode_views(sphere_views(2, num_views=2), {})) for _ in range(2))
    assert first == second
    pictures = sorted(name for name, _ in first)[:6]
    assert [name[:3] for name in pictures] == ["000"] * 3 + ["001"] * 3


def test_a_missing_member_is_named():
    members = dict(encode_views(sphere_views(2, num_views=2), {}))
    del members[view_member(1, "depth")]
    with pytest.raises(WorkFailed, match=r"001\.depth\.png"):
        decode_views(members)
