"""Companion geometry: surfaces survive the file, and damaged files are named in the error."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from core.errors import WorkFailed
from core.storage import Storage
from dataset.format.geometry import (
    SurfaceGeometry,
    geometry_path,
    read_geometry,
    surface_from_arrays,
    write_geometry,
)

PATH = geometry_path("cube", "0123456789abcdef")


def random_arrays(num_points: int = 500) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(num_points, 3))
    return {
        "points": rng.uniform(-1, 1, (num_points, 3)).astype(np.float32),
        "normals": (normals / np.linalg.norm(normals, axis=1, keepdims=True)).astype(np.float32),
        "vertices": rng.uniform(-1, 1, (40, 3)).astype(np.float32),
        "faces": rng.integers(0, 40, (70, 3)).astype(np.int32),
    }


@pytest.fixture
def root(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


@pytest.fixture
def surface() -> SurfaceGeometry:
    return surface_from_arrays(random_arrays())


def test_the_path_spreads_files_over_folders():
    assert PATH == "geometry/cube/01/0123456789abcdef.npz"


def test_a_surface_survives_the_file(root: Storage, surface: SurfaceGeometry):
    size = write_geometry(root, PATH, surface)
    assert size == root.size(PATH)
    loaded = read_geometry(root, PATH)
    np.testing.assert_array_equal(loaded.points, surface.points)
    np.testing.assert_array_equal(loaded.vertices, surface.vertices)
    np.testing.assert_array_equal(loaded.faces, surface.faces)
    np.testing.assert_allclose(np.linalg.norm(loaded.normals, axis=1), 1, atol=1e-6)
    cosines = (loaded.normals.astype(float) * surface.normals).sum(axis=1)
    assert np.degrees(np.arccos(cosines.clip(-1, 1))).max() < 0.03


def test_any_reader_of_npz_opens_it(root: Storage, surface: SurfaceGeometry):
    write_geometry(root, PATH, surface)
    with np.load(root.resolve(PATH)) as arrays:
        kinds = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    assert kinds == {
        "points": ((500, 3), "float32"),
        "normals": ((500, 3), "float16"),
        "vertices": ((40, 3), "float32"),
        "faces": ((70, 3), "int32"),
    }


def test_equal_surfaces_are_equal_bytes(root: Storage, surface: SurfaceGeometry):
    for path in ("a.npz", "b.npz"):
        write_geometry(root, path, surface)
    assert root.read("a.npz") == root.read("b.npz")


def test_a_damaged_file_is_named(root: Storage, surface: SurfaceGeometry):
    write_geometry(root, PATH, surface)
    whole = root.read(PATH)
    rng = np.random.default_rng(1)
    undetected = 0
    for offset in rng.integers(0, len(whole), 200):
        broken = bytearray(whole)
        broken[offset] ^= 0xFF
        root.write(PATH, bytes(broken))
        try:
            loaded = read_geometry(root, PATH)
        except WorkFailed as error:
            assert PATH in str(error)
        else:  # a byte that is not read, such as the date of a member
            np.testing.assert_array_equal(loaded.points, surface.points)
            np.testing.assert_array_equal(loaded.faces, surface.faces)
            undetected += 1
    assert undetected < 20


@pytest.mark.parametrize("length", [0, 1, 1000, -1])
def test_a_truncated_file_is_named(root: Storage, surface: SurfaceGeometry, length: int):
    write_geometry(root, PATH, surface)
    root.write(PATH, root.read(PATH)[:length])
    with pytest.raises(WorkFailed, match=PATH):
        read_geometry(root, PATH)


def test_a_missing_file_is_named(root: Storage):
    with pytest.raises(WorkFailed, match=PATH):
        read_geometry(root, PATH)


def test_no_pickle_is_opened(root: Storage):
    out = io.BytesIO()
    np.savez(out, points=np.array([{}], dtype=object))
    root.write(PATH, out.getvalue())
    with pytest.raises(WorkFailed, match="pickle"):
        read_geometry(root, PATH)


def test_another_zip_file_is_an_error(root: Storage):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("points.npy", "no array")
    root.write(PATH, out.getvalue())
    with pytest.raises(WorkFailed, match=PATH):
        read_geometry(root, PATH)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("points", np.zeros((9, 3), np.float32), "normals"),
        ("points", np.full((500, 3), np.nan, np.float32), "finite"),
        ("vertices", np.full((40, 3), np.inf, np.float32), "finite"),
        ("vertices", np.zeros((40, 2), np.float32), "points"),
        ("normals", np.zeros((500, 3), np.float32), "unit length"),
        ("faces", np.full((70, 3), 40, np.int32), "no vertex"),
        ("faces", np.full((70, 3), -1, np.int32), "no vertex"),
        ("faces", np.zeros((70, 3), np.float32), "no vertex"),
        ("faces", np.zeros((0, 3), np.int32), "faces"),
    ],
)
def test_arrays_that_are_not_a_surface_are_an_error(name: str, value: np.ndarray, problem: str):
    with pytest.raises(ValueError, match=problem):
        surface_from_arrays(random_arrays() | {name: value})


def test_a_missing_array_is_an_error():
    arrays = random_arrays()
    del arrays["faces"]
    with pytest.raises(KeyError, match="faces"):
        surface_from_arrays(arrays)
