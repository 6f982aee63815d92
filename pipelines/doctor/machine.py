"""Checks of the machine: memory, shared memory, disk space for temporary files, open files."""

import os
import resource
import shlex
import tempfile
from pathlib import Path

from core.paths.temporary_folder import short_folder, write_problem
from core.quantities import size
from pipelines.doctor.finding import Finding, State
from pipelines.ray_session import MAX_RAY_FOLDER, default_ray_folder
from render.render_config import BlenderLimits

__all__ = [
    "check_memory",
    "check_open_files",
    "check_ray_folder",
    "check_scratch",
    "check_shared_memory",
]

_SHARED = Path("/dev/shm")  # noqa: S108 - the folder that Ray, PyTorch and NCCL use
_ENOUGH_SHARED = 2 * 10**9
"""Free bytes of shared memory below which a finding is a note."""
_FRAMES = 500 * 10**6
"""Bytes of an object's rendered frames before any is read: 32 views of 512 pixels."""
_OPEN_FILES = 4096
"""Open files of a Blender child (core.confined.confine). With fewer, Ray warns, too."""


def check_memory() -> Finding:
    """Check that the memory is enough for one Blender child per core, each at its limit."""
    cores, child = len(os.sched_getaffinity(0)), BlenderLimits().recycle_bytes
    total = _memory()
    state: State = "ok"
    remedy = ""
    if total < cores * child:
        # A note only: with less memory, a build still works as long as objects are small.
        state, remedy = "note", f"lrm build ... --execution.render-memory {child}"
    return Finding(
        what="memory",
        state=state,
        found=f"{size(total)}; {cores} Blender children may use up to {size(cores * child)}",
        needed_for="rendering on all cores",
        remedy=remedy,
    )


def _memory() -> int:
    """Return the bytes of memory of the machine, or the limit of the container if it is lower."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            total = min(total, int((Path("/sys/fs/cgroup") / name).read_text()))
        except (OSError, ValueError):
            continue
    return total


def check_shared_memory(needed_for: str) -> Finding:
    """Check that shared memory can be written, and its free space."""
    what = "shared memory"
    remedy = f"mount -o remount,size=8G {_SHARED}  # or: docker run --shm-size 8g"
    try:
        with tempfile.TemporaryFile(dir=_SHARED) as file:
            file.write(bytes(1 << 20))
            file.flush()
            free = _free(_SHARED)
    except OSError as error:
        return Finding(
            what=what,
            state="missing",
            found=f"cannot write to {_SHARED}: {error.strerror}",
            needed_for=needed_for,
            remedy=f"mount -t tmpfs -o size=8G shm {_SHARED}  # or: docker run --shm-size 8g",
        )
    low = free < _ENOUGH_SHARED
    advice = f"; {size(_ENOUGH_SHARED)} or more are recommended" if low else ""
    return Finding(
        what=what,
        state="note" if low else "ok",
        found=f"{size(free)} free in {_SHARED}{advice}",
        needed_for=needed_for,
        remedy=remedy if low else "",
    )


def check_scratch() -> Finding:
    """Check that the folder of temporary files can be written, and its free space."""
    what, needed_for = "scratch folder", "rendered frames, complete and partial downloads"
    tmpdir = os.environ.get("TMPDIR")
    larger = "export TMPDIR=FOLDER  # on a disk with more space"
    if tmpdir is not None and (problem := write_problem(Path(tmpdir))):
        remedy = f"mkdir -p {shlex.quote(tmpdir)}" if not Path(tmpdir).exists() else larger
        found = f"cannot write to TMPDIR={tmpdir}: {problem}"
        return Finding(
            what=what, state="missing", found=found, needed_for=needed_for, remedy=remedy
        )
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError:
        found = "no folder for temporary files can be written"
        return Finding(
            what=what, state="missing", found=found, needed_for=needed_for, remedy=larger
        )
    problem, free = write_problem(folder), _free(folder)
    cores = len(os.sched_getaffinity(0))
    state: State = "ok"
    found = f"{size(free)} free in {folder}"
    if problem:
        found, state = f"cannot write to {folder}: {problem}", "missing"
    elif free < _FRAMES:
        found, state = f"{found}; the frames of one object take {size(_FRAMES)}", "missing"
    elif free < cores * _FRAMES:
        needed = size(cores * _FRAMES)
        found, state = f"{found}; the frames of {cores} objects take {needed}", "note"
    remedy = "" if state == "ok" else larger
    return Finding(what=what, state=state, found=found, needed_for=needed_for, remedy=remedy)


def check_ray_folder() -> Finding:
    """Check that Ray can write to its folder, and that the names of its sockets fit."""
    folder = default_ray_folder()
    length = len(os.fsencode(folder))
    state: State = "ok"
    found = f"{folder}: {length} bytes, at most {MAX_RAY_FOLDER} for the names of sockets"
    if problem := write_problem(folder):
        found, state = f"cannot write to {folder}: {problem}", "missing"
    elif length > MAX_RAY_FOLDER:
        short = short_folder()
        state = "note" if short else "missing"
        found += f"; a local Ray uses {short} instead" if short else ""
    return Finding(
        what="folder of Ray",
        state=state,
        found=found,
        needed_for="--address local, ray start",
        remedy="" if state == "ok" else "export TMPDIR=FOLDER  # with a short name",
    )


def _free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def check_open_files() -> Finding:
    """Check the hard limit of open files.

    The soft limit does not matter: Ray and the Blender children raise it themselves.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard == resource.RLIM_INFINITY
    few = not unlimited and hard < _OPEN_FILES
    maximum = "no limit" if unlimited else f"at most {hard}"
    command = "ulimit -n 65536" if os.geteuid() == 0 else "sudo prlimit --pid $$ --nofile=65536"
    return Finding(
        what="open files",
        state="missing" if few else "ok",
        found=f"soft limit {soft}, hard limit: {maximum}"
        + (f"; {_OPEN_FILES} are needed" if few else ""),
        needed_for="Ray, Blender children",
        remedy=command if few else "",
    )
