"""Lose power at every step of a command, and continue from what the disk holds.

`python -m benchmarks power_loss` runs commands on a small dataset and records at every step which
files are durable (`tests/support/durable_files.py`). For every step it writes what a disk may hold
after a loss of power there: without what was not flushed, with files that are empty, cut or filled
with zeros, with deleted files again, and with random parts of the changes. On each of these disks
it runs `lrm status`, `lrm repair` if that is asked for, `lrm verify` and the same command again,
and compares the result with an undisturbed run. Nothing may end in a traceback, nothing that was
reported as done may be lost, and the samples must be the same; otherwise the exit code is 1.
docs/notes/reliability.md shows the result of a run.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.loss_scenarios import SCENARIOS, Disk
from benchmarks.chaos.recovery import record, recover
from benchmarks.chaos.remembered_renders import remembered_renders
from benchmarks.help_text import benchmark_parser
from pipelines.demo.demo_mirror import write_demo_source
from tests.support.disk_losses import all_losses

__all__ = ["Outcome", "lose_power"]

_SHOWN = 200
"""Characters of a problem that are printed; equal ones are counted."""


@dataclass(kw_only=True)
class Outcome:
    """The losses of power of one command."""

    points: int = 0
    """Steps of the command."""
    disks: int = 0
    """Different disks after a loss at one of them."""
    repaired: int = 0
    """Disks that `lrm repair` had to repair."""
    damage: Counter[str] = field(default_factory=Counter)
    """The first damage that `lrm verify` found, with the number of disks."""
    problems: Counter[str] = field(default_factory=Counter)
    """What went wrong, with the number of disks."""
    examples: dict[str, str] = field(default_factory=dict)
    """For each problem one disk that shows it."""


def lose_power(
    folder: Path, name: str, *, num_random: int = 2, seed: int = 0, every: int = 1
) -> Outcome:
    """Lose power during the command `name` of SCENARIOS, at every step or each `every`-th one.

    Works below `folder`, in which only the source stays.
    """
    scenario = SCENARIOS[name]
    source = folder / "source"
    write_demo_source(source)
    outcome = Outcome()
    with tempfile.TemporaryDirectory(dir=folder) as scratch, remembered_renders():
        disk = Disk(folder=Path(scratch) / "disk", source=source)
        recording = record(scenario, disk)
        outcome.points = len(recording.points)
        every *= scenario.every
        for loss in all_losses(recording.points, seed=seed, num_random=num_random, every=every):
            recovery = recover(scenario, disk, recording, loss)
            outcome.disks += 1
            outcome.repaired += recovery.repaired
            outcome.damage.update([recovery.damage] if recovery.damage else [])
            if recovery.problem:
                problem = recovery.problem.replace(str(disk.folder), "")[:_SHOWN]
                outcome.problems[problem] += 1
                outcome.examples.setdefault(problem, loss.what)
    return outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios and print a table; return 1 if one has problems."""
    args = _parse(arguments)
    failed = False
    print("| command | steps | disks | repaired | damage found | wrong | seconds |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only or SCENARIOS:
            started = time.monotonic()
            outcome = lose_power(
                Path(folder), name, num_random=args.random, seed=args.seed, every=args.every
            )
            wrong, seconds = outcome.problems.total(), time.monotonic() - started
            print(
                f"| {name} | {outcome.points} | {outcome.disks} | {outcome.repaired} | "
                f"{outcome.damage.total()} | {wrong} | {seconds:.0f} |",
                flush=True,
            )
            for damage, count in outcome.damage.most_common():
                print(f"  damage on {count}: {damage}", flush=True)
            for problem, count in outcome.problems.most_common():
                print(f"  wrong on {count}: {problem} [{outcome.examples[problem]}]", flush=True)
            failed = failed or bool(wrong)
    return int(failed)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, help="run these commands only")
    parser.add_argument("--random", type=int, default=2, help="random mixtures at every step")
    parser.add_argument("--seed", type=int, default=0, help="seed of the mixtures")
    parser.add_argument("--every", type=int, default=1, help="lose power at each N-th step only")
    return parser.parse_args(arguments)
