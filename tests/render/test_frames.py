"""Frames: the sRGB curve, straight alpha, and errors for what Blender did not write."""

from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.cameras import Camera, intrinsics_from_fov, look_at
from render.frames import FrameError, read_silhouettes, read_views, srgb_from_linear

CAMERA = Camera(camera_to_world=look_at(np.array([0, -2.6, 0])), intrinsics=intrinsics_from_fov(50))


def write(path: Path, **channels: np.ndarray) -> None:
    named = {name.replace("_", "."): pixels for name, pixels in channels.items()}
    header = {"compression": OpenEXR.NO_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, named).write(str(path))


def plane(*values: float) -> np.ndarray:
    return np.array([values], dtype=np.float32)


def write_frame(folder: Path, frame: int = 1) -> None:
    """Four pixels: opaque grey, half-covered grey, background, and glowing red."""
    half = np.float32(0.5)
    write(
        folder / f"colour_{frame:04d}.exr",
        ViewLayer_Combined_R=plane(0.2, 0.2 * half, 0, 7),
        ViewLayer_Combined_G=plane(0.2, 0.2 * half, 0, 0),
        ViewLayer_Combined_B=plane(0.2, 0.2 * half, 0, -0.1),
        ViewLayer_Combined_A=plane(1, half, 0, 1),
    )
    write(
        folder / f"geometry_{frame:04d}.exr",
        ViewLayer_Depth_Z=plane(2.5, 3.0, 1e10, 1.5),
        ViewLayer_Normal_X=plane(0, 3, 0, 0),
        ViewLayer_Normal_Y=plane(-1, 4, 0, 0),
        ViewLayer_Normal_Z=plane(0, 0, 0, 0.5),
    )


def test_pixels_are_straight_srgb(tmp_path: Path):
    write_frame(tmp_path)
    views = read_views(tmp_path, [CAMERA])
    grey = 124  # 0.2 on the sRGB curve: 0.4845 of 255
    expected = [(grey, grey, grey, 255), (grey, grey, grey, 128), (0, 0, 0, 0), (255, 0, 0, 255)]
    np.testing.assert_array_equal(views.rgba[0, 0], expected)


def test_depth_is_zero_and_normals_are_unit(tmp_path: Path):
    write_frame(tmp_path)
    views = read_views(tmp_path, [CAMERA])
    np.testing.assert_array_equal(views.depth[0, 0], plane(2.5, 3.0, 0, 1.5)[0])
    expected = [(0, -1, 0), (0.6, 0.8, 0), (0, 0, 0), (0, 0, 1)]
    np.testing.assert_allclose(views.normals[0, 0], expected, atol=1e-6)
    assert views.depth.dtype == views.normals.dtype == np.float32


def test_a_missing_frame(tmp_path: Path):
    write_frame(tmp_path)
    with pytest.raises(FrameError, match=r"colour_0002\.exr"):
        read_views(tmp_path, [CAMERA, CAMERA])


@pytest.mark.parametrize("kept", [0, 10, 200])
def test_a_truncated_frame(tmp_path: Path, kept: int):
    write_frame(tmp_path)
    path = tmp_path / "geometry_0001.exr"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FrameError, match="unreadable"):
        read_views(tmp_path, [CAMERA])


def test_a_frame_without_the_pass(tmp_path: Path):
    write(tmp_path / "silhouette_0001.exr", ViewLayer_Depth_Z=plane(1.0))
    with pytest.raises(FrameError, match="Combined"):
        read_silhouettes(tmp_path, 1)


def test_frames_of_two_sizes(tmp_path: Path):
    write(tmp_path / "silhouette_0001.exr", ViewLayer_Combined_A=plane(1, 1))
    write(tmp_path / "silhouette_0002.exr", ViewLayer_Combined_A=plane(1))
    with pytest.raises(FrameError, match="one size"):
        read_silhouettes(tmp_path, 2)


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=20).map(sorted))
def test_the_curve_rises_and_undoes_the_decoding_of_the_standard(values: list[float]):
    linear = np.array(values)
    encoded = srgb_from_linear(linear)
    assert (np.diff(encoded) >= -1e-9).all()
    decoded = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(decoded, linear, atol=2e-6)


def test_the_ends_of_the_curve():
    np.testing.assert_allclose(
        srgb_from_linear(np.array([0.0, 0.18, 1.0])), [0, 0.4613, 1], atol=1e-4
    )
