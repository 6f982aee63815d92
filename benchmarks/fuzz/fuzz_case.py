"""One case of benchmarks.fuzz.fuzz: a spoilt file, what looks at it, and what may come of that."""

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
from render.check import check_views
from render.process import BlenderProcess, RenderFailure
from render.render_config import BlenderLimits, RenderConfig
from render.rigs import get_rig

__all__ = ["LIMITS", "Outcome", "Plan", "inspect", "run_case"]

LIMITS = BlenderLimits(
    import_seconds=20, measure_seconds=20, render_seconds=20, memory_bytes=2 * 2**30
)
"""Small, so that a file that hangs or swells costs little."""
_INSPECT_SECONDS = 20.0
_RIG = get_rig("lrm32")
_CAMERAS = _RIG.cameras("fuzz")[:2]
_CONFIG = RenderConfig(resolution=32, samples=1, denoise=False)
_NUM_POINTS = 1000
_GONE_SECONDS = 10.0
_FARTHEST = 1.1
"""Coordinate that a point in the cube may have, rounding included."""
_PARSER = frozenset(
    {FailureKind.MALFORMED, FailureKind.EXTERNAL_REFERENCE, FailureKind.UNSUPPORTED_EXTENSION}
)
"""Kinds that only the parser finds: the child never gives one to a file that the inspection passes.
"""
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
"""Answers to a file. The machine's own failures are none."""


def inspect(glb: Path) -> None:
    """What the stage `inspect` does with a file."""
    found = inspect_glb(glb)
    stored = json.dumps(found.to_dict(), allow_nan=False)
    if Inspection.from_dict(json.loads(stored)) != found:
        raise ValueError(f"not the same after JSON: {found}")


@dataclass(frozen=True)
class Plan:
    """What the cases are made of, and what looks at them."""

    models: Sequence[Path]
    seed: int = 0
    targets: Sequence[str] = ("inspect", "blender")
    inspect: Callable[[Path], None] = inspect
    patience: float = 400.0
    """Seconds for a case: all limits, and the start of a child."""

    def make(self, number: int) -> tuple[bytes, list[str]]:
        """The bytes of a case, and how they were made."""
        rng = Random(f"{self.seed}/{number}")
        model, other = rng.choice(self.models), rng.choice(self.models)
        data, steps = mutate(model.read_bytes(), other.read_bytes(), rng)
        return data, [model.name, *steps]


@dataclass(frozen=True)
class Outcome:
    """What came of one case."""

    number: int
    kinds: dict[str, str] = field(default_factory=dict)
    """`ok` or the kind of failure, by target."""
    messages: dict[str, str] = field(default_factory=dict)
    violations: Sequence[str] = ()
    replaced: bool = False
    """Whether the Blender child was."""
    memory: int = 0
    """Most bytes that a Blender child of this worker has held so far."""


def run_case(plan: Plan, number: int, blender: BlenderProcess, folder: Path) -> Outcome:
    """Show a case to the plan's targets. All temporary files must go to `folder`."""
    path, before = folder / "case.glb", blender.pid
    path.write_bytes(plan.make(number)[0])
    looks = {"inspect": plan.inspect, "blender": lambda glb: _render(blender, glb)}
    kinds, messages, violations = {}, {}, []
    for target in plan.targets:
        started = time.monotonic()
        try:
            looks[target](path)
            kinds[target] = "ok"
        except (GlbError, RenderFailure) as error:
            kinds[target], messages[target] = error.kind, str(error)
            if error.kind not in _KINDS[target]:
                violations.append(f"{target}: {error.kind} is no failure of a file: {error}")
        except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for
            kinds[target] = "violation"
            violations.append(f"{target}: {traceback.format_exc()}")
        if target == "inspect" and time.monotonic() - started > _INSPECT_SECONDS:
            violations.append(f"inspect: {time.monotonic() - started:.1f} s")
    path.unlink()
    if kinds.get("inspect") == "ok" and kinds.get("blender") in _PARSER:
        message = f"{kinds['blender']}: {messages['blender']}"
        violations.append(f"the inspection passes what the child's parser refuses: {message}")
    lost = "blender" in plan.targets and blender.pid is None
    return Outcome(
        number=number,
        kinds=kinds,
        messages=messages,
        violations=[*violations, *_remains(blender, before, folder)],
        replaced=lost or before not in (None, blender.pid),
        memory=max(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10, _peak(blender)),
    )


def _render(blender: BlenderProcess, glb: Path) -> None:
    """What the stages `measure` and `render` do with a file."""
    report = blender.open(glb, _RIG.normalise)
    measured = blender.measure(_CAMERAS, _CONFIG.resolution, _NUM_POINTS)
    scale = depth_scale_for(_CAMERAS)

    def encode(view: int, views: ViewSet) -> None:
        encode_view(view, views.rgba[view], views.depth[view], views.normals[view], scale)

    views, _ = blender.render(_CAMERAS, _CONFIG, on_view=encode)
    check_views(views)
    if not (np.isfinite([report.scale, *report.centre]).all() and report.scale > 0):
        raise ValueError(f"no normalisation: {report}")
    if not ((measured.coverage >= 0) & (measured.coverage <= 1)).all():
        raise ValueError(f"no shares of the frame: {measured.coverage}")
    if np.abs(measured.points).max() > _FARTHEST:
        raise ValueError(f"points outside the cube, at {np.abs(measured.points).max()}")


def _remains(blender: BlenderProcess, before: int | None, folder: Path) -> list[str]:
    """What a case left behind beside the living child and its folder; it is removed."""
    found = []
    for child in psutil.Process().children(recursive=True):
        if child.pid != blender.pid:
            found.append(f"process {child.pid}, which is not the child {blender.pid}")
            child.kill()
            # Until it is gone, the next case would find it as well.
            psutil.wait_procs([child], timeout=_GONE_SECONDS)
    if before not in (None, blender.pid) and _group_lives(before):
        found.append(f"processes of the group of child {before}, which is gone")
    own = [path for path in folder.iterdir() if "-blender-" in path.name]
    for path in set(folder.iterdir()) - set(own[: blender.pid is not None]):
        found.append(f"file {path.name}")
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return found


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _peak(blender: BlenderProcess) -> int:
    """Most resident bytes of the living child so far, 0 if there is none."""
    if blender.pid is None:
        return 0
    status = Path(f"/proc/{blender.pid}/status").read_text()
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(sizes[0]) << 10 if sizes else 0
