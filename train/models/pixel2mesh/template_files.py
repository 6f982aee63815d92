"""The files of a template mesh: .obj, or the info_ellipsoid.dat of the released TensorFlow code.

Published weights fit only the vertices, in the order of the file, that they were trained with.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from core.errors import BadInput, first_line
from core.paths.regular_file import open_regular
from train.models.pixel2mesh.template_mesh import CENTRE, MAX_VERTICES, Template
from train.models.weight_files.pickle_machine import InvalidWeights
from train.models.weight_files.pickled_arrays import PickledArray, read_arrays

__all__ = ["read_template"]

_MAX_OBJ_BYTES = 4_000_000
_MAX_DISTANCE = 0.2
"""Largest distance of the vertices' mean to `CENTRE`; the published one is 0.01 beside it."""
_REMEDY = (
    "give an .obj of triangles around (0, 0, -0.8), or info_ellipsoid.dat of the TensorFlow code"
)

Mesh = tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]


def read_template(path: Path) -> Template:
    """Return the template in a file.

    Its faces need no winding. Raises BadInput if the file cannot be read, is no closed triangle
    mesh, or is not in the camera's frame, in which the template is around (0, 0, -0.8).
    """
    try:
        vertices, faces = _read_info(path) if path.suffix == ".dat" else _read_obj(path)
        _check(vertices, faces)
        return Template(vertices=vertices, faces=_one_winding(faces))
    except FileNotFoundError:
        raise BadInput(f"--template {path}: no such file; {_REMEDY}") from None
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or first_line(error)
        raise BadInput(f"--template {path}: is no template: {problem}; {_REMEDY}") from None


def _check(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> None:
    """Raise ValueError unless the mesh has possible sizes and is around the centre."""
    if not 4 <= len(vertices) <= MAX_VERTICES or len(faces) > 2 * MAX_VERTICES:
        raise ValueError(f"it has {len(vertices)} vertices and {len(faces)} faces")
    if faces.min(initial=0) < 0 or faces.max(initial=0) >= len(vertices):
        raise ValueError("a face names a vertex that it does not have")
    middle = vertices.mean(axis=0)
    if not np.linalg.norm(middle - CENTRE) < _MAX_DISTANCE or vertices[:, 2].max() >= 0:
        around = ", ".join(f"{one:.3g}" for one in middle)
        raise ValueError(f"its vertices are around ({around})")


def _read_obj(path: Path) -> Mesh:
    """Return vertices and faces of an .obj; its other lines say nothing about the shape."""
    with open_regular(path, "rb") as file:
        content = file.read(_MAX_OBJ_BYTES + 1)
    if len(content) > _MAX_OBJ_BYTES:
        raise ValueError(f"it has more than {_MAX_OBJ_BYTES} bytes")
    vertices, faces = [], []
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
        word, *values = line.split() or [""]
        try:
            if word == "v":
                x, y, z = map(float, values[:3])
                vertices.append((x, y, z))
            elif word == "f":
                a, b, c = (int(value.partition("/")[0]) for value in values)
                # Counted from 1, or backwards from the newest vertex.
                faces.append([i - 1 if i > 0 else i + len(vertices) for i in (a, b, c)])
        except ValueError:
            raise ValueError(f"line {number} is no vertex and no triangle") from None
    return np.array(vertices, dtype=np.float64).reshape(-1, 3), _face_array(faces)


def _face_array(faces: list[list[int]]) -> Int[np.ndarray, "f 3"]:
    try:
        return np.array(faces, dtype=np.int64).reshape(-1, 3)
    except OverflowError:
        raise ValueError("a face names a vertex that it does not have") from None


def _read_info(path: Path) -> Mesh:
    """Return vertices and faces of an info_ellipsoid.dat.

    Its item 0 are the vertices. Item 5 has, for each resolution, the two vertices of each edge and
    the third ones of the two faces beside it.
    """
    content = read_arrays(path)
    try:
        vertices, beside = _values(content[0], "f"), _values(content[5][0], "i")
    except (TypeError, LookupError):
        raise InvalidWeights("it has not the arrays of an info_ellipsoid.dat") from None
    if vertices.shape[1:] != (3,) or beside.shape[1:] != (4,):
        raise InvalidWeights("it has not the arrays of an info_ellipsoid.dat")
    triangles = np.concatenate([beside[:, [0, 1, 2]], beside[:, [0, 1, 3]]])
    return vertices.astype(np.float64), np.unique(np.sort(triangles, axis=1), axis=0)


def _values(array: Any, kind: str) -> np.ndarray:
    if (
        not isinstance(array, PickledArray)
        or array.values is None
        or array.values.dtype.kind != kind
    ):
        raise LookupError
    return array.values.astype(np.float64 if kind == "f" else np.int64)


def _one_winding(faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, "f 3"]:
    """Return the faces, turned so that neighbours have their common side in opposite directions.

    Files lose the winding when a program sorts each face's vertices. Where there is none, as on a
    Möbius strip, `Template` refuses the faces.
    """
    beside: dict[frozenset[int], list[int]] = {}
    wound = [tuple(face) for face in faces.tolist()]
    for number, face in enumerate(wound):
        for side in _sides(face):
            beside.setdefault(frozenset(side), []).append(number)
    done: set[int] = set()
    for start in range(len(wound)):
        piece = [] if start in done else [start]
        done.add(start)
        for number in piece:
            for side in _sides(wound[number]):
                for other in set(beside.pop(frozenset(side), ())) - done:
                    if side in _sides(wound[other]):
                        wound[other] = wound[other][::-1]
                    done.add(other)
                    piece.append(other)
    return np.array(wound, dtype=np.int64)


def _sides(face: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    a, b, c = face
    return (a, b), (b, c), (c, a)
