"""Compare the estimates of `lrm plan` for other settings with real builds.

`python -m benchmarks estimates --source DIR --work DIR` builds a few real models with the settings
of `--base`. For each of the changes it copies this dataset, asks for the estimate, builds, and
prints both per stage, in seconds of one worker and in bytes. The copies start from the same
catalog, so each estimate is scaled from the measurements of the base. docs/notes/scale.md shows the
figures of a run.

A machine with other work gives each build another speed. So a second ratio corrects the seconds by
the share of a core that the build got: the CPU time of its processes, without that of a build that
does nothing, over the time of its stages.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, add_figures, write_figures
from benchmarks.help_text import benchmark_parser
from benchmarks.real_models import choose_models

__all__ = ["main"]

_BASE = "--render.resolution 128 --render.samples 12 --rig lrm32"
_CHANGES = (
    "--rig one2345",
    "--rig zero123plus",
    "--render.samples 4",
    "--render.samples 24 --render.min-samples 24",
    "--render.resolution 256",
    "--render.resolution 512",
)
_HEADER = (
    "| change | stage | objects: expected, measured | seconds: expected, measured | ratio "
    "| ratio at the same speed | MB: expected, measured |",
    "|---|---|---|---|---|---|---|",
)
_ALL = ("--filters.caption.enabled false --filters.textured.enabled false --address none").split()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The expected and the measured cost of one build, by stage."""

    change: str
    expected: Mapping[str, Mapping[str, float]]
    """`objects`, `seconds` and `bytes` of each stage."""
    taken: Mapping[str, Mapping[str, float]]
    ends: tuple[float, float]
    """The range of the expected seconds."""
    speed: float
    """CPU seconds per second of the stages."""

    def total(self, name: str) -> tuple[float, float]:
        """Return the sum over the stages, expected and measured."""
        expected, taken = (
            sum(stage[name] for stage in stages.values()) for stages in (self.expected, self.taken)
        )
        return expected, taken


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the base, then estimate and build each change, and print the comparison."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add("--source", type=Path, required=True, help="folder of models in Objaverse's layout")
    add("--work", type=Path, required=True, help="folder for the datasets; the base is kept")
    add("--objects", type=int, default=8, help="number of models")
    add("--classes", default="textured,animated,lowpoly", help="classes of labels.json")
    add("--base", default=_BASE, help="options of the first build")
    add("--changes", nargs="+", default=_CHANGES, help="options of the other builds, one per text")
    add_figures(parser)
    args = parser.parse_args(arguments)
    source = args.work / "models"
    base = args.work / "base"
    if not base.exists():
        _link_models(args.source, source, args.classes.split(","), args.objects)
        cpu = _build(source, base, args.base.split())
        without_work = _build(source, base, args.base.split())
        measured = {"cpu": cpu, "without_work": without_work}
        (args.work / "measured.json").write_text(json.dumps(measured))
    measured = json.loads((args.work / "measured.json").read_text())
    without_work = measured["without_work"]
    base_speed = _speed(base, measured["cpu"] - without_work)
    print(*_HEADER, sep="\n", flush=True)
    compared = []
    for change in args.changes:
        root = args.work / "changed"
        compared.append(_compare(source, base, root, args.base.split(), change, without_work))
        for line in _rows(compared[-1], base_speed):
            print(line, flush=True)
    worst = max(abs(_corrected(each, base_speed) - 1) for each in compared)
    write_figures(args.figures, [Figure("largest error of an estimate", 100 * worst, "%")])


def _link_models(source: Path, models: Path, classes: Sequence[str], count: int) -> None:
    """Link every k-th model of these classes into a folder."""
    models.mkdir(parents=True)
    paths = choose_models(source, classes)
    for path in paths[:: max(1, len(paths) // count)][:count]:
        (models / path.name).symlink_to(path.resolve())


def _compare(
    source: Path, base: Path, root: Path, common: list[str], change: str, without_work: float
) -> Comparison:
    """Estimate and build one change in a copy of the base.

    `without_work` are the CPU seconds of a build that does nothing.
    """
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(base, root)
    words = [*common, *change.split()]
    estimate = json.loads(_lrm("plan", source, root, [*words, "--json"]))["estimate"]
    cpu = _build(source, root, words)
    taken = json.loads(_lrm("status", None, root, ["--json"]))["cost"]["took"]
    low, high = (3600 * hours for hours in estimate["core_hours_range"])
    return Comparison(
        change=change,
        expected=_by_stage(estimate),
        taken=_by_stage(taken),
        ends=(low, high),
        speed=_speed(root, cpu - without_work),
    )


def _by_stage(cost: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    return {
        name: {
            "objects": stage["objects"],
            "seconds": 3600 * stage["core_hours"],
            "bytes": stage["bytes"],
        }
        for name, stage in cost["stages"].items()
    }


def _build(source: Path, root: Path, words: Sequence[str]) -> float:
    """Build, and return the CPU seconds of all processes."""
    before = os.times()
    _lrm("build", source, root, words)
    after = os.times()
    used = after.children_user + after.children_system
    return used - before.children_user - before.children_system


def _speed(root: Path, cpu_seconds: float) -> float:
    """Return the CPU seconds per second of the stages of the last build."""
    took = json.loads(_lrm("status", None, root, ["--json"]))["cost"]["took"]
    return cpu_seconds / (3600 * took["core_hours"])


def _lrm(command: str, source: Path | None, root: Path, words: Sequence[str]) -> str:
    given = ["--source", str(source), *_ALL] if source else []
    call = [sys.executable, "-m", "pipelines.cli", command, "--root", str(root), *given, *words]
    return subprocess.run(call, check=True, capture_output=True, text=True).stdout


def _corrected(compared: Comparison, base_speed: float) -> float:
    """Return measured / expected seconds, as if both builds had got the same share of a core."""
    expected, taken = compared.total("seconds")
    return taken / expected * compared.speed / base_speed


def _rows(compared: Comparison, base_speed: float) -> list[str]:
    """Return the rows of a Markdown table: one per stage, and one for all."""
    lines = []
    for stage in compared.taken:
        pair = [stages.get(stage) for stages in (compared.expected, compared.taken)]
        objects, seconds, sizes = (
            tuple(each[name] if each else 0.0 for each in pair)
            for name in ("objects", "seconds", "bytes")
        )
        ratio = f"{seconds[1] / seconds[0]:.2f}" if seconds[0] else ""
        megabytes = f"{sizes[0] / 1e6:.1f}, {sizes[1] / 1e6:.1f}" if any(sizes) else ""
        lines.append(
            f"| | {stage} | {objects[0]:.0f}, {objects[1]:.0f} "
            f"| {seconds[0]:.1f}, {seconds[1]:.1f} | {ratio} | | {megabytes} |"
        )
    expected, taken = compared.total("seconds")
    low, high = compared.ends
    lines.append(
        f"| `{compared.change}` | all | | {expected:.0f} ({low:.0f} to {high:.0f}), {taken:.0f} "
        f"| {taken / expected:.2f} | **{_corrected(compared, base_speed):.2f}** | |"
    )
    return lines
