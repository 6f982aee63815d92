"""Compare a training with randomly killed processes to an undisturbed training.

`python -m benchmarks chaos_train` trains stage 1 (`tiny`) on two training workers of a Ray cluster
with three nodes on this machine, and kills workers, raylets and the driver at random times. At the
end the batches, losses and weights must be those of the undisturbed run, bit for bit, and no
process may be left; otherwise the exit code is 1. It prints the repeated steps and the seconds that
each kind of kill costs. docs/notes/training.md shows the result of a run.
"""

import dataclasses
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.help_text import benchmark_parser
from tests.support.fake_cluster import FakeCluster, children_of, processes_with
from tests.support.paths import REPOSITORY
from tests.support.sphere_datasets import write_sphere_dataset
from train.checkpoints.checkpoint import find_checkpoint
from train.monitoring.metrics_log import read_metrics
from train.monitoring.run_file import RUN_FILE

__all__ = ["Kill", "Outcome", "chaos"]

KINDS = ("worker", "raylet", "driver")
_WORKERS = 2
_TRAIN_WORKER = "TrainWorker"
_SETTINGS = (
    "--preset tiny --loss.lpips 0 --data.num-inputs 2 --data.num-targets 1 --data.patch-size 16 "
    "--data.target-size-min 24 --data.target-size-max 32 --preview-every 0 --loggers [] "
    "--batch-size 2"
).split()


@dataclass(kw_only=True)
class Kill:
    """One kill and its cost."""

    kind: str
    step: int
    """The number of completed steps."""
    steps_again: int
    """The number of completed steps that were repeated."""
    seconds: float
    """Time until the next new step; until the end of the run after the last step."""


@dataclass(kw_only=True)
class Outcome:
    """The disturbed run compared with the undisturbed one."""

    kills: list[Kill]
    driver_starts: int
    seconds: float
    undisturbed_seconds: float
    same_batches: bool
    same_losses: bool
    same_weights: bool
    orphans: list[str]

    @property
    def passed(self) -> bool:
        """Whether the run equals the undisturbed one and no process is left."""
        return self.same_batches and self.same_losses and self.same_weights and not self.orphans


@dataclass(frozen=True, kw_only=True)
class _Progress:
    """The progress of a run at some time, read from its folder."""

    when: float
    """Monotonic clock, in seconds."""
    step: int
    """The last logged step."""
    started: str
    """Start time of the newest attempt."""
    first_step: int
    """First step of the newest attempt."""


def trains_below(raylet: psutil.Process) -> bool:
    """Return whether a node runs a training worker."""
    return any(_TRAIN_WORKER in process.name() for process in children_of(raylet))


def _last_start(out: Path) -> dict[str, Any]:
    try:
        run = json.loads((out / RUN_FILE).read_bytes())
    except (OSError, ValueError):
        return {"started": "", "first_step": 0}
    return {name: run[name] for name in ("started", "first_step")}


class _Run:
    """A run on the cluster; its driver is restarted whenever it is killed."""

    def __init__(self, cluster: FakeCluster, words: Sequence[str], out: Path, steps: int) -> None:
        ray = ["--address", cluster.address, "--max-failures", "20"]
        ray += ["--worker-resources", "{CPU: 1, train: 1}"]
        self._command = [sys.executable, "-m", "pipelines.cli", "train", *words, *ray]
        self._cluster, self._out, self._steps = cluster, out, steps
        self._progress = [_Progress(when=time.monotonic(), step=0, started="", first_step=0)]
        self._kills: list[tuple[str, _Progress]] = []
        self._started = time.monotonic()
        self.starts = 0
        self._start()

    def _start(self) -> None:
        self.starts += 1
        with open(self._out.with_suffix(".log"), "ab") as log:
            self._driver = subprocess.Popen(self._command, stdout=log, stderr=log, cwd="/")

    def disturb(self, kinds: Sequence[str], rng: random.Random, until: float) -> None:
        """Kill a process of each kind in this order, at random steps.

        Every third kill on average comes while the run is still restarting after the last one.
        """
        for number, kind in enumerate(kinds):
            if number and rng.random() < 1 / 3:
                last_step, give_up = self._step(), time.monotonic() + rng.uniform(0.5, 8.0)
                while self._step() == last_step and time.monotonic() < give_up:
                    self._watch(0.1, until)
            else:
                target = max(self._step() + 1, self._steps * 0.9 * number / len(kinds))
                while self._step() < min(target + rng.choice((0, 0, 1, 2)), self._steps):
                    self._watch(rng.uniform(0.05, 0.3), until)
            # There may be no process of this kind now, but there is always a driver.
            killed = kind if self._kill(kind, rng) else "driver"
            if killed != kind:
                self._kill(killed, rng)
            at = dataclasses.replace(self._progress[-1], when=time.monotonic())
            self._kills.append((killed, at))
            print(f"{number + 1}: {killed} killed after step {self._step()}", flush=True)

    def _kill(self, kind: str, rng: random.Random) -> bool:
        """Kill a random process of a kind; return False if there is none."""
        if kind == "driver":
            self._driver.kill()
            self._driver.wait()
            self._start()
            return True
        if kind == "raylet":
            raylets = self._cluster.raylets()
            # There is one node more than workers; the node without a worker would cost nothing.
            at_work = [number for number, raylet in enumerate(raylets) if trains_below(raylet)]
            self._cluster.kill_node(rng.choice(at_work or range(len(raylets))))
            self._cluster.add_node()
            return True
        workers = self._cluster.workers(_TRAIN_WORKER)
        try:
            rng.choice(workers).kill()
        except (IndexError, psutil.NoSuchProcess):
            return False
        return True

    def finish(self, until: float) -> float:
        """Wait for the last step; return the seconds since the first start."""
        while self._driver.poll() is None:
            self._watch(0.2, until)
        if self._driver.poll() != 0:
            code = self._driver.poll()
            raise RuntimeError(f"the run failed, exit code {code}: {self._tail()}")
        self._record()
        return time.monotonic() - self._started

    def stop(self) -> None:
        """Kill the driver if it runs."""
        if self._driver.poll() is None:
            self._driver.kill()
            self._driver.wait()

    def kills(self) -> list[Kill]:
        """Return all kills and their costs."""
        ends = [*(at.when for _, at in self._kills[1:]), float("inf")]
        return [
            self._cost(kind, at, end) for (kind, at), end in zip(self._kills, ends, strict=True)
        ]

    def _cost(self, kind: str, at: "_Progress", end: float) -> Kill:
        """Return a kill and its cost; `end` is the time of the next kill."""
        later = [point for point in self._progress if point.when > at.when]
        restarts = [point for point in later if point.started != at.started and point.when < end]
        # Steps that the old workers still finished do not count. If the node had no workers,
        # there was no restart and no cost.
        if restarts:
            later = [point for point in later if point.when >= restarts[0].when]
        # After the last step there is no new step: take the end of the run.
        next_step = next((point for point in later if point.step > at.step), later[-1])
        steps_again = max(0, at.step - restarts[0].first_step) if restarts else 0
        seconds = round(next_step.when - at.when, 1)
        return Kill(kind=kind, step=at.step, steps_again=steps_again, seconds=seconds)

    def _watch(self, seconds: float, until: float) -> None:
        """Record the progress for `seconds`. Raises RuntimeError after the time `until`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._record()
            if time.monotonic() > until:
                step, log = self._step(), self._tail()
                raise RuntimeError(f"the run exceeded the time limit at step {step}: {log}")
            time.sleep(0.05)

    def _record(self) -> None:
        rows, start = read_metrics(self._out), _last_start(self._out)
        step = rows[-1]["step"] if rows else 0
        self._progress.append(_Progress(when=time.monotonic(), step=step, **start))

    def _step(self) -> int:
        return self._progress[-1].step

    def _tail(self) -> str:
        return self._out.with_suffix(".log").read_text()[-2000:]


def chaos(
    folder: Path,
    steps: int,
    kinds: Sequence[str],
    seed: int,
    checkpoint_every: int,
    deadline: float = 3600.0,
) -> Outcome:
    """Train without faults (with torchrun), then on Ray with the kills `kinds` in this order.

    Raises RuntimeError if a run fails, or after `deadline` seconds.
    """
    root, snapshot = write_sphere_dataset(folder / "dataset")
    token = uuid.uuid4().hex
    until = time.monotonic() + deadline
    undisturbed_out, disturbed_out = folder / "undisturbed", folder / "disturbed"
    common = ["nerf", "--root", root.uri, "--snapshot", snapshot, *_SETTINGS]
    common += ["--steps", str(steps), "--num-workers", str(_WORKERS)]
    common += ["--checkpoint-every", str(checkpoint_every)]
    undisturbed_seconds = _train_alone([*common, "--out", str(undisturbed_out)], deadline)
    with FakeCluster(_WORKERS + 1, {"CPU": 1.0, "train": 1.0}, token) as cluster:
        run = _Run(cluster, [*common, "--out", str(disturbed_out)], disturbed_out, steps)
        try:
            run.disturb(kinds, random.Random(seed), until)
            seconds = run.finish(until)
        finally:
            run.stop()
    # Ray's helper processes end a moment after the processes that they served.
    _, alive = psutil.wait_procs(processes_with(token), timeout=60)
    return Outcome(
        kills=run.kills(),
        driver_starts=run.starts,
        undisturbed_seconds=round(undisturbed_seconds, 1),
        seconds=round(seconds, 1),
        same_batches=_column(undisturbed_out, "batch") == _column(disturbed_out, "batch"),
        same_losses=_column(undisturbed_out, "loss") == _column(disturbed_out, "loss"),
        same_weights=_same_weights(undisturbed_out, disturbed_out),
        orphans=[" ".join(process.cmdline())[:200] for process in alive],
    )


def _train_alone(words: Sequence[str], deadline: float) -> float:
    """Train without faults and without Ray; return the seconds."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", str(_WORKERS), "-m", "train"]
    started = time.monotonic()
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [*torchrun, *words],
        check=False,
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=deadline,
    )
    if process.returncode:
        code = process.returncode
        raise RuntimeError(f"the undisturbed run failed, exit code {code}: {process.stderr}")
    return time.monotonic() - started


def _column(out: Path, name: str) -> list[Any]:
    return [(row["step"], row[name]) for row in read_metrics(out)]


def _same_weights(undisturbed: Path, disturbed: Path) -> bool:
    expected, actual = (find_checkpoint(out).weights() for out in (undisturbed, disturbed))
    return expected.keys() == actual.keys() and all(
        torch.equal(value, actual[name]) for name, value in expected.items()
    )


def main() -> None:
    """Print the costs by kind; exit 1 if the run differs from the undisturbed one."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--steps", type=int, default=60, help="steps of the run")
    parser.add_argument("--kills", type=int, default=21, help="number of kills")
    parser.add_argument(
        "--checkpoint-every", type=int, default=5, help="steps between two checkpoints"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the order and times of kills")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the outcome to this file"
    )
    args = parser.parse_args()
    kinds = [KINDS[number % len(KINDS)] for number in range(args.kills)]
    random.Random(args.seed).shuffle(kinds)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        outcome = chaos(Path(folder), args.steps, kinds, args.seed, args.checkpoint_every)
    print("| killed | times | repeated steps: mean, max | seconds to the next step: median, max |")
    print("|---|---|---|---|")
    for kind in KINDS:
        kills = [kill for kill in outcome.kills if kill.kind == kind]
        if kills:
            steps, seconds = [k.steps_again for k in kills], [k.seconds for k in kills]
            steps_text = f"{statistics.mean(steps):.1f}, {max(steps)}"
            seconds_text = f"{statistics.median(seconds):.0f}, {max(seconds):.0f}"
            print(f"| {kind} | {len(kills)} | {steps_text} | {seconds_text} |")
    print(f"undisturbed {outcome.undisturbed_seconds:.0f} s, disturbed {outcome.seconds:.0f} s")
    print(f"equal batches: {outcome.same_batches}, losses: {outcome.same_losses}", end=", ")
    print(f"weights: {outcome.same_weights}; processes left: {outcome.orphans or 'none'}")
    if args.json:
        args.json.write_text(json.dumps(asdict(outcome), indent=1))
    if not outcome.passed:
        sys.exit(1)
