"""Every failure has its kind, affects one object only, and leaves no process and no file."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from dataset.cameras import Camera, intrinsics_from_fov, look_at
from glb.limits import GlbLimits
from render import process
from render.process import BlenderProcess, RenderFailure
from render.render_config import BlenderLimits, RenderConfig
from tests.support.analytic_shapes import edit_glb
from tests.support.paths import REPOSITORY

CAMERA = Camera(camera_to_world=look_at(np.array([0, -2.6, 0])), intrinsics=intrinsics_from_fov(50))
QUICK = RenderConfig(resolution=32, samples=1, denoise=False)
ENDLESS = RenderConfig(resolution=512, samples=4096, denoise=False)


def child_of(process: BlenderProcess) -> psutil.Process:
    assert process.pid is not None
    return psutil.Process(process.pid)


def assert_renders(process: BlenderProcess, glb: Path) -> None:
    """Check that an ordinary object renders."""
    process.open(glb, "cube")
    views, _ = process.render([CAMERA], QUICK)
    assert (views.depth > 0).any()


def failure_of(action: Callable[[], Any]) -> RenderFailure:
    with pytest.raises(RenderFailure) as caught:
        action()
    assert str(caught.value)
    return caught.value


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def write_text(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\n")


def change(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        edit_glb(path, lambda document: edit(document) and None)

    return apply


def require_unknown(document: dict[str, Any]) -> None:
    document["extensionsUsed"] = document["extensionsRequired"] = ["ACME_gizmo"]


def remove_meshes(document: dict[str, Any]) -> None:
    document["nodes"] = [{"name": "nothing"}]
    document["scenes"] = [{"nodes": [0]}]


def stretch_to_infinity(document: dict[str, Any]) -> None:
    node = document["nodes"][document["scenes"][0]["nodes"][0]]
    node.pop("matrix", None)
    node["scale"] = [1e308, 1e308, 1e308]


def shrink_to_a_point(document: dict[str, Any]) -> None:
    for root in document["scenes"][0]["nodes"]:
        document["nodes"][root].pop("matrix", None)
        document["nodes"][root]["scale"] = [0, 0, 0]


def index_beyond_the_end(document: dict[str, Any]) -> None:
    for accessor in document["accessors"]:
        if accessor["type"] == "VEC3":
            accessor["count"] = 3


@pytest.mark.parametrize(
    "spoil, kind",
    [
        (truncate, "malformed"),
        (write_text, "malformed"),
        (change(require_unknown), "unsupported_extension"),
        (change(remove_meshes), "empty"),
        (change(shrink_to_a_point), "empty"),
        (change(stretch_to_infinity), "refused"),
        (change(index_beyond_the_end), "malformed"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_bad_files(
    blender: BlenderProcess, block: Path, tmp_path: Path, spoil: Callable[[Path], None], kind: str
):
    path = tmp_path / "bad.glb"
    path.write_bytes(block.read_bytes())
    spoil(path)
    failure = failure_of(lambda: blender.open(path, "cube"))
    assert failure.kind == kind
    assert "Location:" not in str(failure)  # the message has no line of Blender's Python code
    assert not blender.has_scene
    assert_renders(blender, block)


def test_a_line_has_no_surface(blender: BlenderProcess, block: Path, tmp_path: Path):
    path = tmp_path / "line.glb"
    path.write_bytes(block.read_bytes())

    def flatten(document: dict[str, Any]) -> None:
        for root in document["scenes"][0]["nodes"]:
            document["nodes"][root].pop("matrix", None)
            document["nodes"][root]["scale"] = [1, 0, 0]

    edit_glb(path, flatten)
    assert failure_of(lambda: blender.open(path, "cube")).kind == "empty"
    assert_renders(blender, block)


def test_a_relative_path(blender: BlenderProcess, block: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(block.parent)
    assert_renders(blender, Path(block.name))


def test_a_missing_file_is_an_import_error(blender: BlenderProcess, block: Path, tmp_path: Path):
    assert failure_of(lambda: blender.open(tmp_path / "no.glb", "cube")).kind == "import_error"
    assert_renders(blender, block)


@pytest.mark.parametrize(
    "limits", [{"max_triangles": 47}, {"max_nodes": 3}], ids=lambda limits: next(iter(limits))
)
def test_too_large(block: Path, limits: dict[str, int]):
    with BlenderProcess(BlenderLimits(), glb_limits=GlbLimits(**limits)) as process:
        failure = failure_of(lambda: process.open(block, "cube"))
    assert failure.kind == "too_large"
    assert f"the limit is {next(iter(limits.values()))}" in str(failure)


@pytest.fixture(scope="module")
def killable_process() -> Iterator[BlenderProcess]:
    """Start a Blender process whose child tests may kill; the next `open` starts another child."""
    with BlenderProcess(BlenderLimits(threads=2, render_seconds=2.0)) as process:
        yield process


@pytest.fixture
def killable(killable_process: BlenderProcess, block: Path) -> BlenderProcess:
    """Return a process with an open object, whose child a test may kill."""
    killable_process.open(block, "cube")
    return killable_process


def test_time_limit(killable: BlenderProcess, block: Path):
    before = child_of(killable)
    started = time.monotonic()
    failure = failure_of(lambda: killable.render([CAMERA] * 4, ENDLESS))
    assert failure.kind == "timeout"
    assert time.monotonic() - started < 10
    assert not before.is_running()
    assert_renders(killable, block)


def test_memory_limit(block: Path):
    with BlenderProcess(BlenderLimits(threads=2, memory_bytes=2**29)) as process:
        process.open(block, "cube")
        huge = RenderConfig(resolution=6000, samples=1, denoise=False)
        failure = failure_of(lambda: process.render([CAMERA], huge))
        assert failure.kind == "out_of_memory"
        assert "512 MiB" in str(failure)
        assert_renders(process, block)


def test_a_child_killed_while_it_renders(killable: BlenderProcess, block: Path):
    child = child_of(killable)
    timer = threading.Timer(0.7, child.kill)
    timer.start()
    failure = failure_of(lambda: killable.render([CAMERA] * 4, ENDLESS))
    timer.join()
    assert failure.kind == "killed"
    assert "SIGKILL" in str(failure)
    assert len(failure.log_tail.encode()) <= 4096
    assert_renders(killable, block)


def test_a_file_cut_off_by_a_full_disk_is_no_fault_of_the_object(
    killable: BlenderProcess, block: Path, monkeypatch: pytest.MonkeyPatch
):
    """Also if the disk has space again when the file is read."""
    killable.open(block, "cube")
    read = process.read_silhouettes

    def read_truncated(folder: Path, *sizes: int) -> Any:
        for path in folder.iterdir():
            path.write_bytes(path.read_bytes()[:40])
        return read(folder, *sizes)

    monkeypatch.setattr(process, "read_silhouettes", read_truncated)
    assert failure_of(lambda: killable.measure([CAMERA], 32, 1000)).kind == "bad_output"
    killable.open(block, "cube")
    usage, free = shutil.disk_usage(block.parent), iter([0])
    monkeypatch.setattr(
        process.shutil, "disk_usage", lambda _: usage._replace(free=next(free, usage.free))
    )
    assert failure_of(lambda: killable.measure([CAMERA], 32, 1000)).kind == "no_space"


def test_a_child_killed_between_two_steps(killable: BlenderProcess, block: Path):
    child = child_of(killable)
    child.kill()
    deadline = time.monotonic() + 10
    while killable.has_scene:
        assert time.monotonic() < deadline
    assert failure_of(lambda: killable.render([CAMERA], QUICK)).kind == "killed"
    assert_renders(killable, block)


def test_rendering_needs_an_open_object(block: Path):
    with BlenderProcess(BlenderLimits()) as process:
        assert failure_of(lambda: process.render([CAMERA], QUICK)).kind == "crash"


def test_a_child_is_replaced_after_a_number_of_objects(block: Path):
    with BlenderProcess(BlenderLimits(objects_per_child=2)) as process:
        pids = []
        for _ in range(3):
            process.open(block, "cube")
            pids.append(process.pid)
    assert pids[0] == pids[1] != pids[2]


def test_a_child_over_the_memory_for_reuse_is_replaced(block: Path):
    with BlenderProcess(BlenderLimits(recycle_bytes=2**20)) as process:
        pids = []
        for _ in range(2):
            process.open(block, "cube")
            pids.append(process.pid)
    assert pids[0] != pids[1]


def test_close_leaves_nothing(block: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with BlenderProcess(BlenderLimits()) as process:
        assert_renders(process, block)
        child = child_of(process)
    assert not child.is_running()
    assert list(tmp_path.iterdir()) == []
    process.close()  # a second call has no effect


def test_the_child_gets_no_secrets(block: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    with BlenderProcess(BlenderLimits()) as process:
        process.open(block, "cube")
        assert "AWS_SECRET_ACCESS_KEY" not in child_of(process).environ()


def test_a_killed_parent_leaves_no_orphan(block: Path, tmp_path: Path):
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from render.process import BlenderProcess\n"
        "from render.render_config import BlenderLimits\n"
        "process = BlenderProcess(BlenderLimits())\n"
        "process.open(Path(sys.argv[1]), 'cube')\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(block)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)},
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert child.is_running()
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    deadline = time.monotonic() + 10
    while _is_alive(child):
        assert time.monotonic() < deadline, "the Blender child outlived its parent"
        time.sleep(0.05)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
