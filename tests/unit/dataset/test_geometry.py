"""Companion geometry: surfaces survive the file, and damaged files are named in the error."""

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from botocore.exceptions import NoCredentialsError

from core.errors import Damaged, WorkFailed
from core.storage import Storage
from dataset.format.geometry import (
    SurfaceGeometry,
    geometry_path,
    read_geometry,
    read_surface_points,
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


class Content(Storage):
    """A storage whose files all have the same bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__("/")
        self._data = data

    def read(self, path: str) -> bytes:
        return self._data


def packed(compression: int = zipfile.ZIP_DEFLATED, **members: bytes) -> bytes:
    """Return a zip file of arrays, where `members` replace those of a valid one."""
    arrays = {}
    for name, array in random_arrays(20).items():
        out = io.BytesIO()
        np.save(out, array)
        arrays[name] = out.getvalue()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in (arrays | members).items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def array_file(header: str, content: bytes = b"") -> bytes:
    text = header.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def with_stated_size(num_bytes: int) -> bytes:
    """Return a valid file whose directory states another unpacked size of its first member."""
    data = bytearray(packed())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, num_bytes)
    return bytes(data)


def pickled() -> bytes:
    out = io.BytesIO()
    np.savez(out, points=np.array([{}], dtype=object), normals=np.zeros((1, 3)))
    return out.getvalue()


def header(rows: str, kind: str = "<f4") -> str:
    return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({rows}, 3), }}\n"


DAMAGES = {
    "empty": b"",
    "truncated": packed()[:-1],
    "no array": packed(points=b"no array"),
    "no normals": packed().replace(b"normals", b"abnorms"),
    "a pickle": pickled(),
    "unpacks to gigabytes": with_stated_size(0xFFFFFFF0),
    "unpacks to more than stated": with_stated_size(100),
    "tables of gigabytes": packed(zipfile.ZIP_LZMA),
    "states ten billion rows": packed(points=array_file(header("9999999999"))),
    "states negative rows": packed(points=array_file(header("-3"))),
    "states no rows": packed(points=array_file(header("0")), normals=array_file(header("0"))),
    "a nested header": packed(points=array_file("-" * 9000 + "1")),
    "an open header": packed(points=array_file("(" * 9000)),
    "words": packed(points=array_file(header("20", "<U4"), bytes(960))),
    "a longer header than the file": packed(points=b"\x93NUMPY\x01\x00\xff\xff"),
}


@pytest.mark.parametrize("read", [read_geometry, read_surface_points])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_content_is_named(read: Callable[[Storage, str], object], damage: str):
    assert read(Content(packed()), PATH)
    with pytest.raises(Damaged, match=f"{PATH}: cannot read the geometry: .*`lrm verify`"):
        read(Content(DAMAGES[damage]), PATH)


@pytest.mark.parametrize("read", [read_geometry, read_surface_points])
def test_a_flipped_byte_changes_no_array(
    root: Storage, surface: SurfaceGeometry, read: Callable[[Storage, str], SurfaceGeometry]
):
    write_geometry(root, PATH, surface)
    whole = root.read(PATH)
    rng = np.random.default_rng(1)
    undetected = 0
    for offset in rng.integers(0, len(whole), 200):
        broken = bytearray(whole)
        broken[offset] ^= 0xFF
        try:
            loaded = read(Content(bytes(broken)), PATH)
        except Damaged as error:
            assert PATH in str(error)
        else:  # a byte that is not read, such as the date of a member, or that of another array
            np.testing.assert_array_equal(loaded.points, surface.points)
            undetected += 1
    assert undetected < (20 if read is read_geometry else 60)


def test_only_the_points_are_unpacked(root: Storage, surface: SurfaceGeometry):
    write_geometry(root, PATH, surface)
    expected, loaded = read_geometry(root, PATH), read_surface_points(root, PATH)
    np.testing.assert_array_equal(loaded.points, expected.points)
    np.testing.assert_array_equal(loaded.normals, expected.normals)
    assert read_surface_points(Content(packed(vertices=b"no array")), PATH)


def test_arrays_may_be_stored_by_columns(root: Storage, surface: SurfaceGeometry):
    by_columns = {name: np.asfortranarray(array) for name, array in vars(surface).items()}
    write_geometry(root, PATH, SurfaceGeometry(**by_columns))
    np.testing.assert_array_equal(read_geometry(root, PATH).points, surface.points)


def test_a_missing_file_is_no_damaged_one(root: Storage):
    with pytest.raises(WorkFailed, match=PATH) as error:
        read_geometry(root, PATH)
    assert isinstance(error.value.__cause__, FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        read_surface_points(root, PATH)


def test_a_store_without_credentials_is_an_error_of_one_line():
    class NoCredentials(Storage):
        def read(self, path: str) -> bytes:
            raise NoCredentialsError

    with pytest.raises(WorkFailed, match=f"{PATH}: cannot read the geometry: Unable to locate"):
        read_geometry(NoCredentials("/nowhere"), PATH)


def test_points_damaged_in_transit_are_read_again_past_the_cache(surface: SurfaceGeometry):
    class Flaky(Content):
        def read_immutable(self, path: str, *, cached: bool = True) -> bytes:
            return packed()[:100] if cached else packed()

    assert len(read_surface_points(Flaky(b""), PATH).points) == 20


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("points", np.zeros((9, 3), np.float32), "normals"),
        ("points", np.full((500, 3), np.nan, np.float32), "finite"),
        ("vertices", np.full((40, 3), np.inf, np.float32), "finite"),
        ("vertices", np.zeros((40, 2), np.float32), "vertices"),
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
