"""Blender's frames: the sRGB curve, straight alpha, errors for missing or damaged files."""

from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.cameras import Camera, intrinsics_from_fov, look_at
from dataset.views import ViewSet
from render.frames import (
    FrameError,
    empty_views,
    read_silhouettes,
    read_view,
    srgb_from_linear,
)
from render.job import Window

CAMERA = Camera(camera_to_world=look_at(np.array([0, -2.6, 0])), intrinsics=intrinsics_from_fov(50))


def write(path: Path, **channels: np.ndarray) -> None:
    pixels_by_name = {name.replace("_", "."): pixels for name, pixels in channels.items()}
    header = {"compression": OpenEXR.NO_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, pixels_by_name).write(str(path))


def plane(*values: float) -> np.ndarray:
    return np.array([values], dtype=np.float32)


def write_frame(folder: Path, view: int = 0) -> None:
    """Write four pixels: opaque grey, half-covered grey, background, and glowing red."""
    half = np.float32(0.5)
    write(
        folder / f"colour_{view:03d}.exr",
        ViewLayer_Combined_R=plane(0.2, 0.2 * half, 0, 7),
        ViewLayer_Combined_G=plane(0.2, 0.2 * half, 0, 0),
        ViewLayer_Combined_B=plane(0.2, 0.2 * half, 0, -0.1),
        ViewLayer_Combined_A=plane(1, half, 0, 1),
    )
    write(
        folder / f"geometry_{view:03d}.exr",
        ViewLayer_Depth_Z=plane(2.5, 3.0, 1e10, 1.5),
        ViewLayer_Normal_X=plane(0, 3, 0, 0),
        ViewLayer_Normal_Y=plane(-1, 4, 0, 0),
        ViewLayer_Normal_Z=plane(0, 0, 0, 0.5),
    )


ROW = Window(left=3, top=5, width=4, height=1)
"""Position of the four pixels in an image of 8 x 8 pixels."""


def read(folder: Path, window: Window | None = ROW, view: int = 0) -> ViewSet:
    views = empty_views([CAMERA, CAMERA], resolution=8)
    read_view(folder, view, window, into=views)
    return views


def test_pixels_are_straight_srgb(tmp_path: Path):
    write_frame(tmp_path)
    views = read(tmp_path)
    grey = 124  # 0.2 on the sRGB curve: 0.4845 of 255
    expected = [(grey, grey, grey, 255), (grey, grey, grey, 128), (0, 0, 0, 0), (255, 0, 0, 255)]
    np.testing.assert_array_equal(views.rgba[0, 5, 3:7], expected)


def test_depth_is_zero_and_normals_are_unit(tmp_path: Path):
    write_frame(tmp_path)
    views = read(tmp_path)
    np.testing.assert_array_equal(views.depth[0, 5, 3:7], plane(2.5, 3.0, 0, 1.5)[0])
    expected = [(0, -1, 0), (0.6, 0.8, 0), (0, 0, 0), (0, 0, 1)]
    np.testing.assert_allclose(views.normals[0, 5, 3:7], expected, atol=1e-6)
    assert views.depth.dtype == views.normals.dtype == np.float32


def test_pixels_outside_the_window_are_background(tmp_path: Path):
    write_frame(tmp_path, view=1)
    views = read(tmp_path, view=1)
    for picture in (views.rgba, views.depth, views.normals):
        assert picture[1, 5, 3:7].any()
        picture[1, 5, 3:7] = 0
        assert not picture.any()


def test_a_view_without_a_window_is_empty_and_needs_no_frames(tmp_path: Path):
    assert not read(tmp_path, window=None).rgba.any()


def test_frames_are_removed_once_they_are_read(tmp_path: Path):
    write_frame(tmp_path)
    read(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_frame_is_an_error(tmp_path: Path):
    write_frame(tmp_path)
    with pytest.raises(FrameError, match=r"colour_001\.exr"):
        read(tmp_path, view=1)


def test_a_frame_of_another_size_is_an_error(tmp_path: Path):
    write_frame(tmp_path)
    with pytest.raises(FrameError, match="4x1 pixels, not 4x2"):
        read(tmp_path, Window(left=0, top=0, width=4, height=2))


@pytest.mark.parametrize("kept", [0, 10, 200])
def test_a_truncated_frame_is_an_error(tmp_path: Path, kept: int):
    write_frame(tmp_path)
    path = tmp_path / "geometry_000.exr"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FrameError, match="unreadable"):
        read(tmp_path)


def test_a_frame_without_its_pass_is_an_error(tmp_path: Path):
    write(tmp_path / "silhouette_000.exr", ViewLayer_Depth_Z=plane(1.0))
    with pytest.raises(FrameError, match="Combined"):
        read_silhouettes(tmp_path, 1)


def test_frames_of_two_sizes_are_an_error(tmp_path: Path):
    write(tmp_path / "silhouette_000.exr", ViewLayer_Combined_A=plane(1, 1))
    write(tmp_path / "silhouette_001.exr", ViewLayer_Combined_A=plane(1))
    with pytest.raises(FrameError, match="one size"):
        read_silhouettes(tmp_path, 2)


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=20).map(sorted))
def test_the_curve_increases_and_inverts_the_decoding_of_the_standard(values: list[float]):
    linear = np.array(values)
    encoded = srgb_from_linear(linear)
    assert (np.diff(encoded) >= -1e-9).all()
    decoded = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(decoded, linear, atol=2e-6)


def test_known_values_of_the_curve():
    np.testing.assert_allclose(
        srgb_from_linear(np.array([0.0, 0.18, 1.0])), [0, 0.4613, 1], atol=1e-4
    )
