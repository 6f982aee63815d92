"""Blender's frames: the sRGB curve, straight alpha, errors for missing or damaged files."""

import struct
import zipfile
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
    read_arrays,
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
        read_silhouettes(tmp_path, 1, 1)


def test_a_silhouette_of_another_size_is_an_error(tmp_path: Path):
    write(tmp_path / "silhouette_000.exr", ViewLayer_Combined_A=plane(1, 1))
    with pytest.raises(FrameError, match="2x1 pixels, not 1x1"):
        read_silhouettes(tmp_path, 1, 1)


def huge_window(path: Path) -> None:
    """Change the size in the header to 60,000 x 60,000 pixels."""
    start = path.read_bytes().index(b"dataWindow\0box2i\0") + len("dataWindow.box2i.") + 4
    with open(path, "r+b") as file:
        file.seek(start)
        file.write(struct.pack("<4i", 0, 0, 59_999, 59_999))


def many_channels(path: Path) -> None:
    write(path, **{f"ViewLayer_{i}": plane(1, 1, 1, 1) for i in range(9)})


def two_parts(path: Path) -> None:
    header = {"type": OpenEXR.scanlineimage}
    channels = {"ViewLayer.Combined.A": plane(1, 1, 1, 1)}
    parts = [OpenEXR.Part(header | {"name": name}, channels, name) for name in "ab"]
    OpenEXR.File(parts).write(str(path))


@pytest.mark.parametrize(
    ("bomb", "message"),
    [
        (huge_window, "60000x60000 pixels, not 4x1"),
        (many_channels, "not a plain image"),
        (two_parts, "not a plain image"),
    ],
)
def test_a_frame_is_not_read_beyond_its_known_size(tmp_path: Path, bomb, message: str):
    """A child that a file has taken over may write any frame."""
    write_frame(tmp_path)
    bomb(tmp_path / "colour_000.exr")
    with pytest.raises(FrameError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("view", "window"),
    [
        (2, ROW),
        (-1, ROW),
        (0, Window(left=5, top=5, width=4, height=1)),
        (0, Window(left=-1, top=5, width=4, height=1)),
        (0, Window(left=0, top=0, width=60_000, height=60_000)),
    ],
)
def test_a_view_must_lie_in_the_picture(tmp_path: Path, view: int, window: Window):
    write_frame(tmp_path)
    with pytest.raises(FrameError, match="in the picture"):
        read(tmp_path, window, view)


def zip_of(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("points.npy", content)


def npy_header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(10 << 20), "the limit is 1048576"),
        (npy_header("(1000000000000, 3)"), "unreadable"),
        (b"no array", "unreadable"),
    ],
    ids=["many bytes", "a huge shape", "text"],
)
def test_arrays_are_limited_before_they_are_read(tmp_path: Path, content: bytes, message: str):
    zip_of(tmp_path / "points.npz", content)
    with pytest.raises(FrameError, match=message):
        read_arrays(tmp_path / "points.npz", 1 << 20)


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
