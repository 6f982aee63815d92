"""A training that is killed again and again, beside one that is left alone.

`python -m benchmarks chaos_train` trains stage 1 (`tiny`) for 60 steps on two workers of a Ray
cluster of several nodes on this machine, and kills workers, raylets and the driver at random
points, as an operator's cluster would. In the end the weights and the batches must be those of the
undisturbed run, bit for bit, and no process may be left. docs/notes/training.md
holds a run's table.
"""

import argparse
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

from tests.support.fake_cluster import FakeCluster, children_of, processes_with
from tests.support.paths import REPOSITORY
from tests.support.spheres import write_spheres
from train.checkpoints.checkpoint import find_checkpoint
from train.monitoring.metrics_log import read_metrics
from train.monitoring.run_log import RUN_FILE

__all__ = ["Kill", "Outcome", "chaos"]

KINDS = ("worker", "raylet", "driver")
_WORKERS = 2
_TRAIN_WORKER = "TrainWorker"
_SETTINGS = (
    "--preset tiny --loss.lpips 0 --data.num-inputs 2 --data.num-targets 1 --data.patch-size 16 "
    "--data.target-size-min 24 --data.target-size-max 32 --preview-every 0 --tensorboard false "
    "--batch-size 2"
).split()


@dataclass(kw_only=True)
class Kill:
    """One kill, and what it cost."""

    kind: str
    step: int
    """Steps that were done."""
    steps_again: int
    """Of these, those that had to be done again."""
    seconds: float
    """Until a step beyond was done; the run's end, if none was left."""


@dataclass(kw_only=True)
class Outcome:
    """What a disturbed run came to, against the undisturbed one."""

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
        """Whether nothing of the run tells that it was killed."""
        return self.same_batches and self.same_losses and self.same_weights and not self.orphans


@dataclass(frozen=True, kw_only=True)
class _Heard:
    """What a run's folder says at some moment."""

    when: float
    step: int
    started: str
    first_step: int


def trains_below(raylet: psutil.Process) -> bool:
    """Whether a node runs a worker of the training."""
    return any(_TRAIN_WORKER in process.name() for process in children_of(raylet))


def _last_start(out: Path) -> dict[str, Any]:
    try:
        run = json.loads((out / RUN_FILE).read_bytes())
    except (OSError, ValueError):
        return {"started": "", "first_step": 0}
    return {name: run[name] for name in ("started", "first_step")}


class _Run:
    """One run on the cluster, and the operator who gives the command again when it has ended."""

    def __init__(self, cluster: FakeCluster, words: Sequence[str], out: Path, steps: int) -> None:
        ray = ["--address", cluster.address, "--max-failures", "20"]
        ray += ["--worker-resources", "{CPU: 1, train: 1}"]
        self._command = [sys.executable, "-m", "pipelines.cli", "train", *words, *ray]
        self._cluster, self._out, self._steps = cluster, out, steps
        self._heard = [_Heard(when=time.monotonic(), step=0, started="", first_step=0)]
        self._strikes: list[tuple[str, _Heard]] = []
        self._first = time.monotonic()
        self.starts = 0
        self._start()

    def _start(self) -> None:
        self.starts += 1
        with open(self._out.with_suffix(".log"), "ab") as log:
            self._driver = subprocess.Popen(self._command, stdout=log, stderr=log, cwd="/")

    def disturb(self, kinds: Sequence[str], rng: random.Random, until: float) -> None:
        """Kill something of each kind in turn, spread over the steps at random; one in three before
        the start after the last kill is done."""
        for number, kind in enumerate(kinds):
            if number and rng.random() < 1 / 3:
                last, patience = self._step(), time.monotonic() + rng.uniform(0.5, 8.0)
                while self._step() == last and time.monotonic() < patience:
                    self._watch(0.1, until)
            else:
                target = max(self._step() + 1, self._steps * 0.9 * number / len(kinds))
                while self._step() < min(target + rng.choice((0, 0, 1, 2)), self._steps):
                    self._watch(rng.uniform(0.05, 0.3), until)
            # Nothing of a kind may be there at this moment; a driver always is.
            done = kind if self._strike(kind, rng) else "driver"
            if done != kind:
                self._strike(done, rng)
            at = dataclasses.replace(self._heard[-1], when=time.monotonic())
            self._strikes.append((done, at))
            print(f"{number + 1}: {done} killed after step {self._step()}", flush=True)

    def _strike(self, kind: str, rng: random.Random) -> bool:
        """Kill one at random; False if there is none."""
        if kind == "driver":
            self._driver.kill()
            self._driver.wait()
            self._start()
            return True
        if kind == "raylet":
            raylets = self._cluster.raylets()
            # One more node is there than workers: that of none costs nothing.
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
        """Wait for the last step; the seconds since the first start."""
        while self._driver.poll() is None:
            self._watch(0.2, until)
        if self._driver.poll() != 0:
            raise RuntimeError(f"the run ended with {self._driver.poll()}: {self._tail()}")
        self._listen()
        return time.monotonic() - self._first

    def stop(self) -> None:
        """End the driver, if it runs."""
        if self._driver.poll() is None:
            self._driver.kill()
            self._driver.wait()

    def kills(self) -> list[Kill]:
        """What was killed, with the time until a further step was heard of."""
        ends = [*(at.when for _, at in self._strikes[1:]), float("inf")]
        return [
            self._cost(kind, at, end) for (kind, at), end in zip(self._strikes, ends, strict=True)
        ]

    def _cost(self, kind: str, at: "_Heard", end: float) -> Kill:
        """Of one kill, before the next one at `end`."""
        later = [heard for heard in self._heard if heard.when > at.when]
        starts = [h for h in later if h.started != at.started and h.when < end]
        # What the old workers still did does not count. A node without workers costs nothing.
        if starts:
            later = [heard for heard in later if heard.when >= starts[0].when]
        # After the last step, only the end of the run was left.
        beyond = next((heard for heard in later if heard.step > at.step), later[-1])
        again = max(0, at.step - starts[0].first_step) if starts else 0
        seconds = round(beyond.when - at.when, 1)
        return Kill(kind=kind, step=at.step, steps_again=again, seconds=seconds)

    def _watch(self, seconds: float, until: float) -> None:
        """Wait, and listen to the metrics. A driver that gave up is started again."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._listen()
            if time.monotonic() > until:
                raise RuntimeError(f"not done at step {self._step()} in time: {self._tail()}")
            time.sleep(0.05)

    def _listen(self) -> None:
        rows, start = read_metrics(self._out), _last_start(self._out)
        step = rows[-1]["step"] if rows else 0
        self._heard.append(_Heard(when=time.monotonic(), step=step, **start))

    def _step(self) -> int:
        return self._heard[-1].step

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
    """Train undisturbed (by torchrun), then on Ray with a kill of each of these kinds in turn.

    Raises RuntimeError if a run fails, or is not done after `deadline` seconds.
    """
    root, snapshot = write_spheres(folder / "dataset")
    token = uuid.uuid4().hex
    until = time.monotonic() + deadline
    calm, rough = folder / "calm", folder / "rough"
    common = ["nerf", "--root", root.uri, "--snapshot", snapshot, *_SETTINGS]
    common += ["--steps", str(steps), "--num-workers", str(_WORKERS)]
    common += ["--checkpoint-every", str(checkpoint_every)]
    undisturbed = _train_alone([*common, "--out", str(calm)], deadline)
    with FakeCluster(_WORKERS + 1, {"CPU": 1.0, "train": 1.0}, token) as cluster:
        run = _Run(cluster, [*common, "--out", str(rough)], rough, steps)
        try:
            run.disturb(kinds, random.Random(seed), until)
            seconds = run.finish(until)
        finally:
            run.stop()
    # Ray's own helpers end by themselves a moment after those that they served.
    _, alive = psutil.wait_procs(processes_with(token), timeout=60)
    return Outcome(
        kills=run.kills(),
        driver_starts=run.starts,
        undisturbed_seconds=round(undisturbed, 1),
        seconds=round(seconds, 1),
        same_batches=_column(calm, "batch") == _column(rough, "batch"),
        same_losses=_column(calm, "loss") == _column(rough, "loss"),
        same_weights=_same_weights(calm, rough),
        orphans=[" ".join(process.cmdline())[:200] for process in alive],
    )


def _train_alone(words: Sequence[str], deadline: float) -> float:
    """Seconds of an undisturbed run, without Ray."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", str(_WORKERS), "-m", "train"]
    started = time.monotonic()
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, *words],
        check=False,
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=deadline,
    )
    if done.returncode:
        raise RuntimeError(f"the undisturbed run ended with {done.returncode}: {done.stderr}")
    return time.monotonic() - started


def _column(out: Path, name: str) -> list[Any]:
    return [(row["step"], row[name]) for row in read_metrics(out)]


def _same_weights(calm: Path, rough: Path) -> bool:
    ours, theirs = (find_checkpoint(out).weights() for out in (calm, rough))
    return ours.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) for name, value in ours.items()
    )


def main() -> None:
    """Print the table; exit 1 if anything tells that the run was killed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--kills", type=int, default=21)
    parser.add_argument("--checkpoint-every", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the outcome there as well")
    args = parser.parse_args()
    kinds = [KINDS[number % len(KINDS)] for number in range(args.kills)]
    random.Random(args.seed).shuffle(kinds)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        found = chaos(Path(folder), args.steps, kinds, args.seed, args.checkpoint_every)
    print(
        "| killed | times | steps done again: mean, most | seconds to the next step: median, most |"
    )
    print("|---|---|---|---|")
    for kind in KINDS:
        those = [kill for kill in found.kills if kill.kind == kind]
        if those:
            lost, waited = [k.steps_again for k in those], [k.seconds for k in those]
            again = f"{statistics.mean(lost):.1f}, {max(lost)}"
            wait = f"{statistics.median(waited):.0f}, {max(waited):.0f}"
            print(f"| {kind} | {len(those)} | {again} | {wait} |")
    print(f"undisturbed {found.undisturbed_seconds:.0f} s, disturbed {found.seconds:.0f} s")
    print(f"batches equal: {found.same_batches}, losses: {found.same_losses}", end=", ")
    print(f"weights: {found.same_weights}; processes left: {found.orphans or 'none'}")
    if args.json:
        args.json.write_text(json.dumps(asdict(found), indent=1))
    if not found.passed:
        sys.exit(1)
