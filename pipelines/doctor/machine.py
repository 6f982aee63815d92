"""What the machine itself gives: memory, shared memory, disk for temporary files, open files."""

import os
import resource
import shlex
import tempfile
from pathlib import Path

from core.quantities import size
from pipelines.doctor.finding import Finding, State
from render.render_config import BlenderLimits

__all__ = ["check_memory", "check_open_files", "check_scratch", "check_shared_memory"]

_SHARED = Path("/dev/shm")  # noqa: S108 - the place that Ray, PyTorch and NCCL use
_ENOUGH_SHARED = 2 * 10**9
_FRAMES = 500 * 10**6
"""Bytes that the frames of an object take, if none was read yet: 32 views of 512 pixels."""
_OPEN_FILES = 4096
"""Of a Blender child (render.blender.confine); below it Ray warns of connection errors, too."""


def check_memory() -> Finding:
    """Room for as many Blender children as there are cores, each of which may grow."""
    cores, child = len(os.sched_getaffinity(0)), BlenderLimits().recycle_bytes
    total = _memory()
    state: State = "ok"
    remedy = ""
    if total < cores * child:
        # With less than that for a single one, too, a build works as long as objects are small.
        state, remedy = "note", f"lrm build ... --execution.render-memory {child}"
    return Finding(
        what="memory",
        state=state,
        found=f"{size(total)}; {cores} Blender children may take {size(cores * child)}",
        needed_for="rendering on all cores",
        remedy=remedy,
    )


def _memory() -> int:
    """Bytes that this process may use: the machine's, or its container's share."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            total = min(total, int((Path("/sys/fs/cgroup") / name).read_text()))
        except (OSError, ValueError):
            continue
    return total


def check_shared_memory(needed_for: str) -> Finding:
    """Whether something can be written there, and how much."""
    what, remedy = (
        "shared memory",
        f"mount -o remount,size=8G {_SHARED}  # docker run --shm-size 8g",
    )
    try:
        with tempfile.TemporaryFile(dir=_SHARED) as file:
            file.write(bytes(1 << 20))
            file.flush()
            free = _free(_SHARED)
    except OSError as error:
        return Finding(
            what=what,
            state="missing",
            found=f"{_SHARED} cannot be written: {error.strerror}",
            needed_for=needed_for,
            remedy=f"mount -t tmpfs -o size=8G shm {_SHARED}  # docker run --shm-size 8g",
        )
    scarce = free < _ENOUGH_SHARED
    return Finding(
        what=what,
        state="note" if scarce else "ok",
        found=f"{size(free)} free in {_SHARED}" + (", which is little" if scarce else ""),
        needed_for=needed_for,
        remedy=remedy if scarce else "",
    )


def check_scratch() -> Finding:
    """Whether temporary files can be written where they would be, and how many."""
    what, needed_for = "scratch folder", "frames, downloads and parts of them"
    named = os.environ.get("TMPDIR")
    larger = "export TMPDIR=FOLDER  # on a disk with more space"
    if named is not None and (problem := _write_problem(Path(named))):
        remedy = f"mkdir -p {shlex.quote(named)}" if not Path(named).exists() else larger
        found = f"TMPDIR is {named}: {problem}"
        return Finding(
            what=what, state="missing", found=found, needed_for=needed_for, remedy=remedy
        )
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError:
        found = "no temporary folder can be written"
        return Finding(
            what=what, state="missing", found=found, needed_for=needed_for, remedy=larger
        )
    problem, free = _write_problem(folder), _free(folder)
    cores = len(os.sched_getaffinity(0))
    state: State = "ok"
    found = f"{size(free)} free in {folder}"
    if problem:
        found, state = f"{folder}: {problem}", "missing"
    elif free < _FRAMES:
        found, state = f"{found}; an object's frames take {size(_FRAMES)}", "missing"
    elif free < cores * _FRAMES:
        found, state = f"{found}; those of {cores} objects take {size(cores * _FRAMES)}", "note"
    remedy = "" if state == "ok" else larger
    return Finding(what=what, state=state, found=found, needed_for=needed_for, remedy=remedy)


def _write_problem(folder: Path) -> str:
    """Why a file of a megabyte cannot be written there, empty if it can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def check_open_files() -> Finding:
    """The hard limit counts: Ray and the Blender children raise the soft one themselves."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard == resource.RLIM_INFINITY
    few = not unlimited and hard < _OPEN_FILES
    most = "no limit" if unlimited else f"at most {hard}"
    line = "ulimit -n 65536" if os.geteuid() == 0 else "sudo prlimit --pid $$ --nofile=65536"
    return Finding(
        what="open files",
        state="missing" if few else "ok",
        found=f"{soft}, {most}" + (f"; {_OPEN_FILES} are needed" if few else ""),
        needed_for="Ray, Blender children",
        remedy=line if few else "",
    )
