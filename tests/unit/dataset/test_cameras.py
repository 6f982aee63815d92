"""The camera conventions: poses, projection, rays and axes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.cameras import (
    Camera,
    intrinsics_from_fov,
    look_at,
    opencv_from_opengl,
    orbit_eye,
    project,
    rays,
    unproject,
    world_to_camera,
)

angles = st.floats(-720, 720)
elevations = st.floats(-90, 90)
distances = st.floats(0.5, 10)


@given(angles, elevations, distances)
def test_look_at_is_rigid_and_looks_at_the_origin(azimuth, elevation, distance):
    matrix = look_at(orbit_eye(azimuth, elevation, distance))
    rotation = matrix[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-5)
    assert np.linalg.det(rotation) == pytest.approx(1, abs=1e-5)
    # The camera looks along -z, where the origin is.
    np.testing.assert_allclose(matrix[:3, 3] - distance * matrix[:3, 2], 0, atol=1e-4)


@given(angles, st.floats(-80, 80), distances)
def test_up_in_the_world_is_up_in_the_image(azimuth, elevation, distance):
    eye = orbit_eye(azimuth, elevation, distance)
    camera = Camera(camera_to_world=look_at(eye), intrinsics=intrinsics_from_fov(50))
    centre, above = project(camera, np.array([[0, 0, 0], [0, 0, 0.1]], dtype=np.float32))[0]
    assert above[1] < centre[1]
    np.testing.assert_allclose(above[0], centre[0], atol=1e-4)


def test_seen_from_plus_x_plus_y_is_on_the_right():
    camera = Camera(
        camera_to_world=look_at(np.array([3.0, 0, 0])), intrinsics=intrinsics_from_fov(50)
    )
    image, depth = project(camera, np.array([[0, 0.5, 0]], dtype=np.float32))
    assert image[0, 0] > 0.5
    assert depth[0] == pytest.approx(3)


@given(angles, elevations, distances, st.integers(1, 7), st.integers(1, 7))
def test_unproject_undoes_project(azimuth, elevation, distance, height, width):
    intrinsics = np.array([1.1, 0.9, 0.45, 0.6], dtype=np.float32)
    eye = orbit_eye(azimuth, elevation, distance)
    camera = Camera(camera_to_world=look_at(eye), intrinsics=intrinsics)
    depth = np.linspace(0.5, 3, height * width, dtype=np.float32).reshape(height, width)
    image, projected_depth = project(camera, unproject(camera, depth))
    np.testing.assert_allclose(projected_depth, depth, rtol=1e-3, atol=1e-4)
    y, x = np.mgrid[:height, :width]
    expected = np.stack([(x + 0.5) / width, (y + 0.5) / height], axis=-1)
    np.testing.assert_allclose(image, expected, atol=2e-3)


def test_rays_reach_planar_depth_one():
    camera = Camera(
        camera_to_world=look_at(np.array([1.0, 2, 0.5])), intrinsics=intrinsics_from_fov(70)
    )
    origin, directions = rays(camera, 5, 4)
    np.testing.assert_allclose(project(camera, origin + directions)[1], 1, atol=1e-5)


@given(angles, elevations, distances)
def test_world_to_camera_is_the_inverse(azimuth, elevation, distance):
    matrix = look_at(orbit_eye(azimuth, elevation, distance))
    np.testing.assert_allclose(world_to_camera(matrix) @ matrix, np.eye(4), atol=1e-5)


def test_opencv_axes_turn_y_and_z_and_back():
    matrix = look_at(np.array([1.0, -2, 0.5]))
    turned = opencv_from_opengl(matrix)
    np.testing.assert_array_equal(turned[:3, 2], -matrix[:3, 2])
    np.testing.assert_array_equal(turned[:3, 3], matrix[:3, 3])
    np.testing.assert_array_equal(opencv_from_opengl(turned), matrix)


def test_looking_straight_down_is_defined():
    matrix = look_at(np.array([0, 0, 2.0]))
    assert np.isfinite(matrix).all()
    np.testing.assert_allclose(matrix[:3, 2], [0, 0, 1])


def test_an_eye_at_its_target_is_an_error():
    with pytest.raises(ValueError, match="eye and target are the same point"):
        look_at(np.zeros(3))
