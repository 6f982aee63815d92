"""One case of benchmarks.fuzz.fuzz: a damaged file, the targets, and the allowed outcomes."""

import json
import os
import resource
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import psutil

from benchmarks.fuzz.mutations import mutate
from core.failures import FailureKind
from dataset.views import ViewSet, depth_scale_for, encode_view
from filters.inspect_glb import GlbError, Inspection, inspect_glb
from render.check import check_render
from render.process import BlenderProcess, RenderFailure
from render.render_config import BlenderLimits, RenderConfig
from render.rigs import get_rig

__all__ = ["LIMITS", "Outcome", "Plan", "inspect", "run_case"]

LIMITS = BlenderLimits(
    import_seconds=20, measure_seconds=20, render_seconds=20, memory_bytes=2 * 2**30
)
"""Small limits, so that a file that hangs or needs much memory costs little time."""
_INSPECT_SECONDS = 20.0
_RIG = get_rig("lrm32")
_CAMERAS = _RIG.cameras("fuzz")[:2]
_CONFIG = RenderConfig(resolution=32, samples=1, denoise=False)
_NUM_POINTS = 1000
_KILL_SECONDS = 10.0
_FARTHEST = 1.1
"""Largest coordinate of a point in the cube, rounding included."""
_PARSER = frozenset(
    {FailureKind.MALFORMED, FailureKind.EXTERNAL_REFERENCE, FailureKind.UNSUPPORTED_EXTENSION}
)
"""Kinds that only the parser reports, so the child must not report them for an accepted file."""
_INSPECT = _PARSER | {FailureKind.EMPTY, FailureKind.TOO_LARGE}
_KINDS = {
    "inspect": _INSPECT,
    "blender": _INSPECT
    | {
        FailureKind.REFUSED,
        FailureKind.IMPORT_ERROR,
        FailureKind.TIMEOUT,
        FailureKind.OUT_OF_MEMORY,
        FailureKind.CRASH,
        FailureKind.BAD_OUTPUT,
    },
}
"""Allowed failure kinds by target; infrastructure faults are not among them."""


def inspect(glb: Path) -> None:
    """Inspect a file as the stage `inspect` does; raise ValueError if JSON changes the result."""
    inspection = inspect_glb(glb)
    stored = json.dumps(inspection.to_dict(), allow_nan=False)
    if Inspection.from_dict(json.loads(stored)) != inspection:
        raise ValueError(f"JSON changes the inspection: {inspection}")


@dataclass(frozen=True)
class Plan:
    """The models that are damaged, the seed, and the targets."""

    models: Sequence[Path]
    seed: int = 0
    targets: Sequence[str] = ("inspect", "blender")
    inspect: Callable[[Path], None] = inspect
    patience: float = 400.0
    """Time limit of a case in seconds: all Blender limits and the start of a child."""

    def make(self, number: int) -> tuple[bytes, list[str]]:
        """Return the bytes of a case, the name of its model and its mutations."""
        rng = Random(f"{self.seed}/{number}")
        model, other = rng.choice(self.models), rng.choice(self.models)
        data, steps = mutate(model.read_bytes(), other.read_bytes(), rng)
        return data, [model.name, *steps]


@dataclass(frozen=True)
class Outcome:
    """The outcome of one case."""

    number: int
    kinds: dict[str, str] = field(default_factory=dict)
    """`ok` or the failure kind, by target."""
    messages: dict[str, str] = field(default_factory=dict)
    violations: Sequence[str] = ()
    replaced: bool = False
    """Whether the Blender child ended or was replaced."""
    memory: int = 0
    """Peak memory in bytes of the Blender children of this worker so far."""


def run_case(plan: Plan, number: int, blender: BlenderProcess, folder: Path) -> Outcome:
    """Run the plan's targets on a case. Their temporary files must be in `folder`."""
    path, previous_pid = folder / "case.glb", blender.pid
    path.write_bytes(plan.make(number)[0])
    functions = {"inspect": plan.inspect, "blender": lambda glb: _render(blender, glb)}
    kinds, messages, violations = {}, {}, []
    for target in plan.targets:
        started = time.monotonic()
        try:
            functions[target](path)
            kinds[target] = "ok"
        except (GlbError, RenderFailure) as error:
            kinds[target], messages[target] = error.kind, str(error)
            if error.kind not in _KINDS[target]:
                violations.append(f"{target}: failure kind {error.kind} is not allowed: {error}")
        except Exception:  # noqa: BLE001 - any exception is a violation
            kinds[target] = "violation"
            violations.append(f"{target}: {traceback.format_exc()}")
        if target == "inspect" and time.monotonic() - started > _INSPECT_SECONDS:
            seconds = time.monotonic() - started
            violations.append(f"inspect: took {seconds:.1f} s, limit {_INSPECT_SECONDS:g} s")
    path.unlink()
    if kinds.get("inspect") == "ok" and kinds.get("blender") in _PARSER:
        message = f"{kinds['blender']}: {messages['blender']}"
        violations.append(f"the child's parser refuses a file that inspect accepts: {message}")
    ended = "blender" in plan.targets and blender.pid is None
    return Outcome(
        number=number,
        kinds=kinds,
        messages=messages,
        violations=[*violations, *_remove_leftovers(blender, previous_pid, folder)],
        replaced=ended or previous_pid not in (None, blender.pid),
        memory=max(
            resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10, _peak_memory(blender)
        ),
    )


def _render(blender: BlenderProcess, glb: Path) -> None:
    """Open, measure and render a file as the stages do; raise ValueError for impossible values."""
    report = blender.open(glb, _RIG.normalise)
    measured = blender.measure(_CAMERAS, _CONFIG.resolution, _NUM_POINTS)
    scale = depth_scale_for(_CAMERAS)

    def encode(view: int, views: ViewSet) -> None:
        encode_view(view, views.rgba[view], views.depth[view], views.normals[view], scale)

    views, rendering = blender.render(_CAMERAS, _CONFIG, on_view=encode)
    check_render(views, rendering, _CONFIG)
    if not (np.isfinite([report.scale, *report.centre]).all() and report.scale > 0):
        raise ValueError(f"the normalisation is not finite and positive: {report}")
    if not ((measured.coverage >= 0) & (measured.coverage <= 1)).all():
        raise ValueError(f"coverage is not within 0 and 1: {measured.coverage}")
    if np.abs(measured.points).max() > _FARTHEST:
        raise ValueError(f"a point is outside the cube, at {np.abs(measured.points).max()}")


def _remove_leftovers(blender: BlenderProcess, previous_pid: int | None, folder: Path) -> list[str]:
    """Remove processes and files that a case left, and return their descriptions.

    The current child and its folder are not leftovers.
    """
    leftovers = []
    for child in psutil.Process().children(recursive=True):
        if child.pid != blender.pid:
            leftovers.append(f"process {child.pid}, which is not the child {blender.pid}")
            child.kill()
            # Wait for its end, otherwise the next case would report it as well.
            psutil.wait_procs([child], timeout=_KILL_SECONDS)
    if previous_pid not in (None, blender.pid) and _group_lives(previous_pid):
        leftovers.append(f"processes in the group of child {previous_pid}, which has ended")
    own_folders = [path for path in folder.iterdir() if "-blender-" in path.name]
    for path in set(folder.iterdir()) - set(own_folders[: blender.pid is not None]):
        leftovers.append(f"file {path.name}")
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return leftovers


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _peak_memory(blender: BlenderProcess) -> int:
    """Return the peak resident memory of the current child in bytes; 0 if there is none."""
    if blender.pid is None:
        return 0
    status = Path(f"/proc/{blender.pid}/status").read_text()
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(sizes[0]) << 10 if sizes else 0
