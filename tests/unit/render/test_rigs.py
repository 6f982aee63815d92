"""Rigs return the same cameras on every call, within the published ranges."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import BadInput
from dataset.cameras import Camera, project
from render.rigs import RIGS, Rig, get_rig

ASSET_IDS = st.text(min_size=1, max_size=40).map("objaverse:{}".format)
LAST_EYE = {
    "lrm32": (-2.157, -1.112, -0.238),
    "zero123plus": (-0.411, 3.652, -0.648),
    "zero123plus-cube": (-0.411, 3.652, -0.648),
    "orbit21": (3.310, -1.021, -2.0),
    "one2345": (1.2, -2.078, 0.0),
    "fixed48": (1.328, -0.356, 2.382),
}
"""Position of the last camera of `objaverse:0`."""
ALL = pytest.mark.parametrize("rig", RIGS.values(), ids=lambda rig: rig.name)


def eyes(cameras: list[Camera]) -> np.ndarray:
    return np.stack([camera.camera_to_world[:3, 3] for camera in cameras])


def angles(cameras: list[Camera]) -> tuple[np.ndarray, np.ndarray]:
    """Return the azimuths in [0, 360) and the elevations, in degrees."""
    x, y, z = eyes(cameras).T.astype(float)
    return np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arctan2(z, np.hypot(x, y)))


def fov(camera: Camera) -> float:
    return 2 * math.degrees(math.atan(0.5 / camera.intrinsics[0]))


@ALL
@settings(max_examples=20)
@given(asset_id=ASSET_IDS)
def test_cameras_depend_only_on_the_object(rig: Rig, asset_id: str):
    first, again = rig.cameras(asset_id), rig.cameras(asset_id)
    assert len(first) == rig.num_views
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.camera_to_world, other.camera_to_world)
        np.testing.assert_array_equal(one.intrinsics, other.intrinsics)


@ALL
@settings(max_examples=20)
@given(asset_id=ASSET_IDS)
def test_cameras_are_upright_and_look_at_the_origin(rig: Rig, asset_id: str):
    for camera in rig.cameras(asset_id):
        assert camera.camera_to_world.dtype == camera.intrinsics.dtype == np.float32
        right, up, backward = camera.camera_to_world[:3, :3].T
        np.testing.assert_allclose(np.cross(right, up), backward, atol=1e-5)
        assert right[2] == pytest.approx(0, abs=1e-6)
        assert up[2] > 0
        image, depth = project(camera, np.zeros((1, 3), dtype=np.float32))
        np.testing.assert_allclose(image, 0.5, atol=1e-5)
        assert depth[0] > 1  # outside the object's unit half-width


@settings(max_examples=20)
@given(asset_id=ASSET_IDS)
def test_lrm32_keeps_the_published_ranges(asset_id: str):
    cameras = get_rig("lrm32").cameras(asset_id)
    distance, height = np.linalg.norm(eyes(cameras), axis=1), eyes(cameras)[:, 2]
    assert len(cameras) == 32
    assert distance.min() >= 2 - 1e-5
    assert distance.max() <= 3.5 + 1e-5
    assert height.min() >= -0.75 - 1e-5
    assert height.max() <= 1.6 + 1e-5
    assert fov(cameras[0]) == pytest.approx(50, abs=1e-3)


def test_lrm32_fills_its_ranges_evenly():
    cameras = [c for n in range(200) for c in get_rig("lrm32").cameras(f"objaverse:{n}")]
    azimuths, _ = angles(cameras)
    fractions = (
        azimuths / 360,
        (np.linalg.norm(eyes(cameras), axis=1) - 2) / 1.5,
        (eyes(cameras)[:, 2] + 0.75) / 2.35,
    )
    for fraction in fractions:
        counts, _ = np.histogram(fraction, bins=8, range=(0, 1))
        np.testing.assert_allclose(counts, 800, rtol=0.15)


def test_the_cube_variant_of_zero123plus_has_the_same_cameras():
    cube, sphere = get_rig("zero123plus-cube"), get_rig("zero123plus")
    assert (cube.normalise, sphere.normalise) == ("cube", "sphere")
    np.testing.assert_array_equal(eyes(cube.cameras("a")), eyes(sphere.cameras("a")))
    assert not np.array_equal(eyes(cube.cameras("a")), eyes(cube.cameras("b")))


@settings(max_examples=20)
@given(asset_id=ASSET_IDS)
def test_zero123plus_targets_are_placed_relative_to_the_query(asset_id: str):
    cameras = get_rig("zero123plus").cameras(asset_id)
    azimuths, elevations = angles(cameras)
    distances = np.linalg.norm(eyes(cameras), axis=1)
    relative = (azimuths[1:] - azimuths[0]) % 360
    np.testing.assert_allclose(relative, [30, 90, 150, 210, 270, 330], atol=1e-3)
    np.testing.assert_allclose(elevations[1:], [20, -10] * 3, atol=1e-3)
    np.testing.assert_allclose(distances[1:], 3.732, atol=1e-3)
    assert -20 - 1e-3 <= elevations[0] <= 45 + 1e-3
    assert 2.5 - 1e-4 <= distances[0] <= 5 + 1e-4
    assert all(fov(camera) == pytest.approx(30, abs=1e-3) for camera in cameras)


def test_orbit21_has_equal_azimuth_steps_and_three_elevations():
    cameras = get_rig("orbit21").cameras("objaverse:any")
    azimuths, elevations = angles(cameras)
    np.testing.assert_allclose(np.diff(azimuths), 360 / 21, atol=1e-3)
    np.testing.assert_allclose(elevations, [30, 0, -30] * 7, atol=1e-3)


def test_one2345_has_the_published_azimuths_and_distance():
    cameras = get_rig("one2345").cameras("objaverse:any")
    azimuths, _ = angles(cameras)
    np.testing.assert_allclose(azimuths, [0, 90, 180, 270, 30, 120, 210, 300], atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(eyes(cameras), axis=1), 2 * 1.2, rtol=1e-5)
    np.testing.assert_allclose(cameras[0].intrinsics[:2], 280 / 256, rtol=1e-5)


def test_fixed48_has_no_view_twice():
    positions = eyes(get_rig("fixed48").cameras("objaverse:any"))
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1) + np.eye(48)
    assert distances.min() > 0.5


@ALL
def test_cameras_of_a_version_never_change(rig: Rig):
    """A rig whose cameras change must raise its version: this is version 1."""
    assert rig.version == 1
    np.testing.assert_allclose(eyes(rig.cameras("objaverse:0"))[-1], LAST_EYE[rig.name], atol=2e-3)


def test_an_unknown_rig_is_an_error_that_suggests_the_closest():
    with pytest.raises(BadInput, match="did you mean 'lrm32'"):
        get_rig("lrm23")
    with pytest.raises(BadInput, match="orbit21"):
        get_rig("?")
