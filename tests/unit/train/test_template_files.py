"""Template files: what is read from both layouts, and every kind of damage in one line."""

import os
import pickle
import time

import numpy as np
import pytest

from core.errors import BadInput
from tests.support.ellipsoid_files import info_content, pickled, write_info, write_obj
from tests.support.weight_bombs import limited_memory
from train.models.pixel2mesh.template_files import read_template
from train.models.pixel2mesh.template_mesh import CENTRE, ellipsoid

WRITERS = {".obj": write_obj, ".dat": write_info}
TEMPLATE = ellipsoid(30)
VERTICES, FACES = TEMPLATE.vertices, TEMPLATE.faces
CENTRED = VERTICES - CENTRE


def face_set(faces):
    """Return the faces as a set, each turned so that its lowest vertex is the first."""
    return {tuple(np.roll(face, -face.argmin())) for face in faces}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("winding", ["kept", "reversed", "sorted", "random"])
def test_a_template_is_read_in_the_order_of_its_vertices(suffix, winding, tmp_path):
    flips = np.random.RandomState(4).randint(0, 2, len(FACES)).astype(bool)
    faces = {
        "kept": FACES,
        "reversed": FACES[:, ::-1],
        "sorted": np.sort(FACES, axis=1),
        "random": np.where(flips[:, None], FACES[:, ::-1], FACES),
    }[winding]
    template = read_template(WRITERS[suffix](tmp_path / f"mesh{suffix}", VERTICES, faces))
    np.testing.assert_allclose(template.vertices, VERTICES, atol=1e-6)
    assert face_set(template.faces) == face_set(FACES)


def test_an_obj_may_count_backwards_and_name_other_attributes(tmp_path):
    path = write_obj(tmp_path / "mesh.obj", VERTICES, FACES)
    text = path.read_text()
    for face in FACES:
        plain = "f {} {} {}\n".format(*(face + 1))
        text = text.replace(plain, "f {}/1/1 {}//2 {}\n".format(*(face - len(VERTICES))), 1)
    path.write_text(text)
    assert face_set(read_template(path).faces) == face_set(FACES)


def obj(vertices=VERTICES, faces=FACES, extra=""):
    def write(path):
        write_obj(path, vertices, np.asarray(faces))
        path.write_text(path.read_text() + extra)

    return write


def text(content):
    return lambda path: path.write_text(content)


DAMAGED_OBJ = {
    "empty": (text(""), "0 vertices"),
    "binary": (lambda path: path.write_bytes(bytes(range(256)) * 9), "0 vertices"),
    "open": (obj(faces=FACES[1:]), "closed surface"),
    "moebius": (obj(faces=np.concatenate([FACES, FACES[:1]])), "closed surface"),
    "quad": (obj(extra="f 1 2 3 4\n"), "line 91 is no vertex and no triangle"),
    "word": (obj(extra="f a b c\n"), "no triangle"),
    "digits": (obj(extra=f"f 1 2 {'9' * 5000}\n"), "no triangle"),
    "beyond": (obj(extra="f 1 2 31\n"), "does not have"),
    "huge": (obj(extra=f"f 1 2 {10**30}\n"), "does not have"),
    "before": (obj(extra="f 1 2 -99\n"), "does not have"),
    "zero": (obj(extra="f 0 1 2\n"), "does not have"),
    "unused": (obj(extra="v 0 0 -0.8\n"), "use each of the 31"),
    "nan": (obj(vertices=VERTICES * [1, 1, np.nan]), "around"),
    "infinite": (obj(extra="v inf 0 -0.8\n"), "around"),
    "centred": (obj(vertices=CENTRED), r"around \(.*\); give an \.obj of tri"),
    "mirrored": (obj(vertices=VERTICES * [1, 1, -1]), "around"),
    "behind": (obj(vertices=CENTRED * 9 + CENTRE), "around"),
    "many": (obj(extra="v 0 0 -0.8\n" * 10_001), "10031 vertices"),
    "large": (text("#" * 4_000_001), "more than 4000000 bytes"),
    "pipe": (os.mkfifo, "named pipe"),
    "folder": (os.mkdir, "directory"),
    "missing": (lambda path: None, "no such file"),
}


@pytest.mark.parametrize("damage", DAMAGED_OBJ)
def test_a_damaged_obj_is_refused_in_one_line(damage, tmp_path):
    write, cause = DAMAGED_OBJ[damage]
    check_refused(tmp_path / "mesh.obj", write, cause)


class Runs:
    """An object whose pickle runs a command."""

    def __reduce__(self):
        return os.system, ("echo ran",)


def info(change):
    """Return a writer of an info_ellipsoid.dat whose content is changed."""

    def write(path):
        content = [*info_content(VERTICES, FACES)]
        path.write_bytes(pickled(change(content)))

    return write


def with_item(number, value):
    return info(lambda content: (*content[:number], value, *content[number + 1 :]))


def edited(before, after):
    """Return a writer of an info_ellipsoid.dat in which bytes are replaced."""

    def write(path):
        content = pickled(info_content(VERTICES, FACES))
        assert before in content
        path.write_bytes(content.replace(before, after, 1))

    return write


SHAPE = b"(K\x1eK\x03t"  # (30, 3)
HUGE = b"(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft"


def repeated_arrays(path):
    """Write a list of arrays that all name the same 3 MB of values."""
    start = pickled(np.zeros(375_000))[:-1]
    values = start.index(b"T\xc0\xc6\x2d\x00")  # 3,000,000 bytes
    after = values + 5 + 3_000_000
    again = start[:values] + b"h" + start[after + 1 : after + 2] + start[after + 2 :]
    path.write_bytes(b"(" + start + again * 2000 + b"t.")


DAMAGED_INFO = {
    "empty": (text(""), "damaged"),
    "html": (text("<html>not found</html>"), "damaged|instruction"),
    "cut": (lambda p: p.write_bytes(pickled(info_content(VERTICES, FACES))[:2000]), "damaged"),
    "code": (lambda path: path.write_bytes(pickle.dumps(Runs(), protocol=1)), "could run code"),
    "later-protocol": (
        lambda path: path.write_bytes(pickle.dumps(info_content(VERTICES, FACES))),
        "instruction FRAME",
    ),
    "objects": (edited(b"U\x02f4", b"U\x02O8"), "numbers of type O8"),
    "type-of-nested-tuples": (
        lambda path: path.write_bytes(
            b"cnumpy\ndtype\n(K\x01" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(60)) + b"tR."
        ),
        "that is no text",
    ),
    "arguments-copied-again": (
        lambda path: path.write_bytes(
            b"(cnumpy.core.multiarray\n_reconstruct\nq\0("
            + b"K\1" * 20_000
            + b"tq\2"
            + b"h\0h\2R" * 20_000
            + b"t."
        ),
        "again and again",
    ),
    "big-endian": (edited(b"U\x01<", b"U\x01>"), "form that is not known"),
    "shape": (edited(SHAPE, b"(K\x1eK\x04t"), "without values"),
    "huge-shape": (edited(SHAPE, HUGE), "without values"),
    "negative": (edited(SHAPE, b"(J\xff\xff\xff\xffK\x03t"), "no number"),
    "no-number": (edited(SHAPE, b"(NK\x03t"), "no number"),
    "dimensions": (edited(SHAPE, b"(K\x1eK\x03" + b"K\x01" * 9 + b"t"), "no number"),
    "repeated": (repeated_arrays, "without values"),
    "large": (lambda path: path.write_bytes(bytes(4_000_001)), "more than 4000000 bytes"),
    "list": (info(lambda content: [1, 2, 3]), "has not the arrays"),
    "number": (info(lambda content: 3), "has not the arrays"),
    "short": (info(lambda content: tuple(content[:5])), "has not the arrays"),
    "no-faces": (with_item(5, []), "has not the arrays"),
    "flat": (with_item(0, VERTICES.astype(np.float32).ravel()), "has not the arrays"),
    "integers": (with_item(0, VERTICES.astype(np.int32)), "has not the arrays"),
    "other-faces": (with_item(5, [np.zeros((9, 4), dtype=np.int32)]), "closed|uses|use each"),
    "beyond": (with_item(5, [np.full((9, 4), 99, dtype=np.int32)]), "does not have"),
    "centred": (with_item(0, CENTRED.astype(np.float32)), "around"),
}


@pytest.mark.parametrize("damage", DAMAGED_INFO)
def test_a_damaged_info_file_is_refused_in_one_line(damage, tmp_path, capfd):
    write, cause = DAMAGED_INFO[damage]
    check_refused(tmp_path / "info.dat", write, cause)
    assert "ran" not in capfd.readouterr().out


def check_refused(path, write, cause):
    """Assert that a file is refused, with little time and memory."""
    write(path)
    started = time.process_time()
    with limited_memory(60_000_000), pytest.raises(BadInput, match=cause) as caught:
        read_template(path)
    assert time.process_time() - started < 2
    message = str(caught.value)
    assert message.startswith(f"--template {path}: ")
    assert "\n" not in message
    assert "info_ellipsoid.dat" in message
    assert len(message) < 400
