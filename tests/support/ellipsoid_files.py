"""Template files in the layouts of Pixel2Mesh's released code, written from any mesh."""

import io
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

__all__ = ["Python2Pickler", "info_content", "pickled", "write_info", "write_obj"]


def write_obj(path: Path, vertices: np.ndarray, faces: np.ndarray) -> Path:
    """Write an .obj with 6 decimals."""
    lines = ["# a template", "o mesh"]
    lines += ["v {:.6f} {:.6f} {:.6f}".format(*vertex) for vertex in vertices]
    lines += ["vn 0 0 1", "s off", *("f {} {} {}".format(*face) for face in faces + 1)]
    path.write_text("\n".join(lines) + "\n")
    return path


class Python2Pickler(pickle._Pickler):
    """Writes arrays as Python 2 and the numpy of its time did."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value: bytes) -> None:
        """Write a str of Python 2."""
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    def save_str(self, value: str) -> None:
        """Write a short str of Python 2."""
        self.write(pickle.SHORT_BINSTRING + bytes([len(value)]) + value.encode())
        self.memoize(value)

    def save_global(self, value: Any, name: str | None = None) -> None:
        """Write the old names of numpy's modules."""
        module = str(value.__module__).replace("numpy._core", "numpy.core")
        self.write(f"c{module}\n{name or value.__qualname__}\n".encode())
        self.memoize(value)

    dispatch[bytes] = save_bytes
    dispatch[str] = save_str
    dispatch[type] = save_global
    dispatch[type(write_obj)] = save_global


def pickled(content: Any) -> bytes:
    """Return the pickle of a value in Python 2's protocol 1."""
    stream = io.BytesIO()
    pickler = Python2Pickler(stream, protocol=1)
    pickler.save(content)
    return stream.getvalue() + pickle.STOP


def info_content(vertices: np.ndarray, faces: np.ndarray) -> tuple[Any, ...]:
    """Return the value in an info_ellipsoid.dat, as far as it describes the first mesh.

    The supports and Laplacian indices in it follow from the faces, and are left empty.
    """
    beside: dict[tuple[int, int], list[int]] = {}
    for face in np.sort(faces, axis=1).tolist():
        for k in range(3):
            one, two = (face[(k + i) % 3] for i in (1, 2))
            beside.setdefault((min(one, two), max(one, two)), []).append(face[k])
    quads = np.array([[*edge, *others] for edge, others in beside.items()], dtype=np.int32)
    empty = np.zeros((0, 2), dtype=np.int32, order="F")
    supports = [[(empty, np.zeros(0), (0, 0))] * 2] * 3
    pairs, laplace = [quads[:, :2].copy()], [np.zeros((0, 10), dtype=np.int64)]
    return (vertices.astype(np.float32), *supports, pairs, [quads], [empty], laplace)


def write_info(path: Path, vertices: np.ndarray, faces: np.ndarray) -> Path:
    """Write an info_ellipsoid.dat."""
    path.write_bytes(pickled(info_content(vertices, faces)))
    return path
