"""A build that is disturbed again and again, beside one that is left alone.

`python -m benchmarks chaos_build --source DIR` builds a dataset on several nodes of a Ray cluster
on this machine into an S3 store that is busy and loses answers, and at random moments kills Blender
children, Ray workers, raylets, the driver, and the driver in the middle of a commit, fills the
scratch disk, and takes the store away. A driver that ended is started again, as an operator does.
In the end the dataset must be that of the undisturbed build, sample for sample.
docs/notes/reliability.md holds a run's table.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psutil

from core.storage import Storage
from dataset.catalog.event_log import Catalog
from dataset.snapshots.snapshot import open_snapshot
from pipelines.demo.demo_mirror import CAPTIONS_FILE, write_demo_source
from tests.support.fake_cluster import FakeCluster, processes_with
from tests.support.flaky_store import faults, flaky_store, kill_at_commit, outage
from tests.support.paths import REPOSITORY

__all__ = ["KINDS", "Outcome", "chaos"]

KINDS = ("blender", "worker", "raylet", "driver", "commit", "disk", "store")
_NODES = 2
_SCRATCH_MEGABYTES = 192
_SCRATCH = "CHAOS_SCRATCH"
"""In the environment: the small disk that is filled."""
_SETTINGS = (
    "--blender.threads 1 --execution.commit-seconds 1 --fetch.backoff-seconds 0.2 "
    "--shards.samples-per-shard 4"
).split()
_LAST_BUILDS = 5


@dataclass(kw_only=True)
class Outcome:
    """What disturbed builds came to, against the undisturbed one."""

    faults: dict[str, int] = field(default_factory=dict)
    store_faults: dict[str, int] = field(default_factory=dict)
    """Requests that the store refused, answers that it cut and lost, all the time."""
    builds: int = 0
    """Datasets; each is compared."""
    driver_starts: int = 0
    seconds: float = 0.0
    undisturbed_seconds: float = 0.0
    objects: int = 0
    samples: int = 0
    """Of one dataset."""
    again: dict[str, int] = field(default_factory=dict)
    """By stage: what was recorded more often than undisturbed."""
    passing_failures: dict[str, int] = field(default_factory=dict)
    """By kind: what failed on the way and not in the end."""
    differences: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing of the datasets tells that they were disturbed."""
        return not self.differences and not self.orphans


class _Operator:
    """Gives the same command until it ends well."""

    def __init__(self, words: Sequence[str], log: Path, until: float) -> None:
        self._command = [sys.executable, "-m", "pipelines.cli", "build", *words]
        self._log, self._until = log, until
        self.starts = 0
        self.start()

    def start(self) -> None:
        """Give the command."""
        self.starts += 1
        with open(self._log, "ab") as log:
            self.driver = subprocess.Popen(self._command, stdout=log, stderr=log, cwd="/")

    def watch(self, seconds: float) -> bool:
        """For so long start again what ended badly; whether the build is done."""
        end = time.monotonic() + seconds
        while True:
            code = self.driver.poll()
            if code == 0:
                return True
            if code is not None:
                self.start()
            if time.monotonic() > self._until:
                raise RuntimeError(f"not done in time: {self.tail()}")
            if time.monotonic() > end:
                return False
            time.sleep(0.1)

    def kill(self) -> None:
        """End the driver, if it runs."""
        if self.driver.poll() is None:
            self.driver.kill()
        self.driver.wait()

    def tail(self) -> str:
        """What was said last."""
        return self._log.read_text(errors="replace")[-2000:]


class _Chaos:
    """What happens to a cluster, its disk and its store."""

    def __init__(self, cluster: FakeCluster, address: str, rng: random.Random) -> None:
        self._cluster, self._address, self._random = cluster, address, rng
        self._strikes: dict[str, Callable[[_Operator], bool]] = {
            "blender": lambda _: self._kill_one("render.blender.worker"),
            "worker": lambda _: self._kill_one("ray::lrm"),
            "raylet": self._lose_node,
            "driver": self._kill_driver,
            "commit": self._kill_committer,
            "disk": self._fill_disk,
            "store": self._take_store,
        }

    def strike(self, kind: str, operator: _Operator) -> bool:
        """Do one thing; False if there was nothing to do it to."""
        self._cluster.replace_lost()
        return self._strikes[kind](operator)

    def _kill_one(self, part: str) -> bool:
        try:
            self._random.choice(self._cluster.workers(part)).kill()
        except (IndexError, psutil.NoSuchProcess):
            return False
        return True

    def _lose_node(self, _: _Operator) -> bool:
        self._cluster.kill_node(self._random.randrange(len(self._cluster.raylets())))
        self._cluster.add_node()
        return True

    def _kill_driver(self, operator: _Operator) -> bool:
        operator.kill()
        return True

    def _kill_committer(self, operator: _Operator) -> bool:
        """The store's proxy does it when the next commit's file arrives."""
        kill_at_commit(self._address, operator.driver.pid)
        try:
            operator.driver.wait(30)
        except subprocess.TimeoutExpired:
            return False
        finally:
            kill_at_commit(self._address, None)
        return operator.driver.returncode == -signal.SIGKILL

    def _fill_disk(self, operator: _Operator) -> bool:
        filler = Path(os.environ[_SCRATCH]) / "filler"
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while file.write(bytes(1 << 20)):
                pass
        operator.watch(self._random.uniform(3, 12))
        filler.unlink()
        return True

    def _take_store(self, _: _Operator) -> bool:
        outage(self._address, self._random.uniform(3, 12))
        return True


def chaos(
    folder: Path,
    source: Path,
    kinds: Sequence[str],
    settings: Sequence[str],
    *,
    seed: int = 0,
    most_seconds_between: float = 12.0,
    deadline: float = 7200.0,
) -> Outcome:
    """Build undisturbed, then with one fault of each of these kinds in turn, in as many datasets as
    it takes.

    Raises RuntimeError if a build fails undisturbed, or all is not done after `deadline` seconds.
    """
    until = time.monotonic() + deadline
    words = ["--source", str(source), "--captions", str(source / CAPTIONS_FILE)]
    words += [*_SETTINGS, *settings]
    found = Outcome()
    calm = Storage(str(folder / "calm"))
    began = time.monotonic()
    _lrm("build", *words, "--root", calm.uri, "--address", "none")
    found.undisturbed_seconds = round(time.monotonic() - began, 1)
    expected = _Dataset.read(calm)
    found.objects, found.samples = len(expected.outcomes), len(expected.samples)

    token, rng = uuid.uuid4().hex, random.Random(seed)
    left = list(kinds)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(flaky_store())
        # What the nodes inherit.
        os.environ |= {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "chaos"}
        os.environ |= {"AWS_SECRET_ACCESS_KEY": "chaos", "AWS_DEFAULT_REGION": "us-east-1"}
        cluster = stack.enter_context(FakeCluster(_NODES, {"CPU": 1.0}, token))
        boto3.resource("s3").create_bucket(Bucket="chaos")
        events = _Chaos(cluster, address, rng)
        while left:
            found.builds += 1
            root = Storage(f"s3://chaos/build-{found.builds}")
            there = [*words, "--root", root.uri]
            on_cluster = ["--address", cluster.address, "--wait"]
            operator = _Operator([*there, *on_cluster], folder / f"build-{found.builds}.log", until)
            try:
                while not operator.watch(rng.uniform(1, most_seconds_between)) and left:
                    kind = left.pop(0)
                    if events.strike(kind, operator):
                        found.faults[kind] = found.faults.get(kind, 0) + 1
                        print(f"{sum(found.faults.values())}: {kind}", flush=True)
                    else:
                        left.append(kind)  # nothing of that kind was there at this moment
                while not operator.watch(5.0):
                    pass
            finally:
                operator.kill()
            found.driver_starts += operator.starts + _finish(there, on_cluster, until)
            _compare(_Dataset.read(root), expected, found)
        found.store_faults = faults(address)
    found.seconds = round(time.monotonic() - began, 1)
    # What served the killed ends by itself a moment after them.
    _, alive = psutil.wait_procs(processes_with(token), timeout=60)
    found.orphans = [" ".join(process.cmdline())[:200] for process in alive]
    return found


def _finish(words: Sequence[str], on_cluster: Sequence[str], until: float) -> int:
    """The same command until nothing is to be done, for what failed in passing; how often."""
    for number in range(_LAST_BUILDS):
        if not json.loads(_lrm("plan", *words, "--json"))["work"]:
            return number
        if time.monotonic() > until:
            break
        _lrm("build", *words, *on_cluster)
    raise RuntimeError(f"after {_LAST_BUILDS} more builds there is still work to do")


@dataclass(frozen=True, kw_only=True)
class _Dataset:
    """What a dataset holds."""

    samples: dict[str, Any]
    """By asset id: what its members are, by size and checksum."""
    twice: list[str]
    """Samples that the snapshot has more than once."""
    outcomes: dict[str, dict[str, str]]
    """By asset id and stage: how it ended."""
    events: Counter[str]
    """By stage."""
    failures: Counter[str]
    """By kind: all that ever failed."""
    findings: list[Any]
    """Of `lrm verify`, which reads every byte of every shard."""
    staged: list[str]

    @classmethod
    def read(cls, root: Storage) -> "_Dataset":
        pinned = json.loads(_lrm("snapshot", "--root", root.uri, "--json"))["snapshot"]
        samples: dict[str, Any] = {}
        twice = []
        for sample in open_snapshot(root, pinned).samples:
            if sample.asset_id in samples:
                twice.append(sample.asset_id)
            entry = sample.entry
            samples[sample.asset_id] = [entry.members, entry.sizes, entry.crc32]
        rows = [row for batch in Catalog(root).since(0) for row in batch.to_pylist()]
        outcomes: dict[str, dict[str, str]] = defaultdict(dict)
        for row in sorted(rows, key=lambda row: row["seq"]):
            outcomes[row["asset_id"]][row["stage"]] = f"{row['status']} {row['kind'] or ''}".strip()
        return cls(
            samples=samples,
            twice=twice,
            outcomes=outcomes,
            events=Counter(row["stage"] for row in rows),
            failures=Counter(row["kind"] for row in rows if row["status"] == "failed"),
            findings=json.loads(_lrm("verify", "--root", root.uri, "--json"))["findings"],
            staged=root.list_files("staging"),
        )


def _compare(rough: _Dataset, calm: _Dataset, found: Outcome) -> None:
    """Note in `found` where a disturbed dataset is another."""
    told = found.differences
    for name in sorted(calm.samples.keys() | rough.samples.keys()):
        if rough.samples.get(name) != calm.samples.get(name):
            state = "other" if name in rough.samples and name in calm.samples else "lost or new"
            told.append(f"build {found.builds}: {name}: {state} bytes")
    for name in sorted(calm.outcomes.keys() | rough.outcomes.keys()):
        ours, theirs = rough.outcomes.get(name), calm.outcomes.get(name)
        if ours != theirs:
            told.append(f"build {found.builds}: {name}: {ours}, undisturbed {theirs}")
    told += [f"build {found.builds}: {name}: twice" for name in rough.twice]
    told += [f"build {found.builds}: {finding}" for finding in rough.findings]
    told += [f"build {found.builds}: {name}: still staged" for name in rough.staged]
    again = Counter(found.again) + (rough.events - calm.events)
    found.again = dict(sorted(again.items()))
    passing = Counter(found.passing_failures) + (rough.failures - calm.failures)
    found.passing_failures = dict(sorted(passing.items()))


def _lrm(*words: str) -> str:
    """What a command prints. Raises RuntimeError if it fails."""
    command = [sys.executable, "-m", "pipelines.cli", *words]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, cwd="/"
    )
    if done.returncode:
        raise RuntimeError(f"lrm {words[0]} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def _run_on_small_disk(scratch: Path) -> int:
    """The same command in a mount namespace in which the scratch folder is a disk of its own, a
    small one."""
    own = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = f"mount -t tmpfs -o size={_SCRATCH_MEGABYTES}m none {scratch}"
    again = [sys.executable, "-m", "benchmarks", "chaos_build", *sys.argv[1:]]
    environment = {**os.environ, _SCRATCH: str(scratch), "TMPDIR": str(scratch)}
    # Ray's own folder stays where there is room.
    environment |= {"RAY_TMPDIR": str(scratch.parent), "PYTHONPATH": str(REPOSITORY)}
    command = [*own, "sh", "-c", f'{mount} && exec "$@"', "sh", *again]
    return subprocess.run(command, check=False, env=environment).returncode


def main() -> None:
    """Print what came of it; exit 1 if anything tells that the builds were disturbed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--source", type=Path, help="folder in Objaverse's layout [default: demo]")
    parser.add_argument("--faults", type=int, default=63)
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=KINDS, help="disk needs user namespaces"
    )
    parser.add_argument("--most-seconds-between", type=float, default=12.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the outcome there as well")
    parser.add_argument("settings", nargs="*", help="of lrm build, after --")
    args = parser.parse_args()
    if "disk" in args.kinds and _SCRATCH not in os.environ:
        with tempfile.TemporaryDirectory(prefix="chaos-scratch-") as scratch:
            sys.exit(_run_on_small_disk(Path(scratch)))
    kinds = [args.kinds[number % len(args.kinds)] for number in range(args.faults)]
    random.Random(args.seed).shuffle(kinds)
    with tempfile.TemporaryDirectory(prefix="chaos-", dir="/var/tmp") as name:
        source = args.source
        if source is None:
            source = Path(name) / "source"
            write_demo_source(source)
        found = chaos(
            Path(name),
            source.absolute(),
            kinds,
            args.settings,
            seed=args.seed,
            most_seconds_between=args.most_seconds_between,
        )
    if args.json:
        args.json.write_text(json.dumps(asdict(found), indent=1))
    print(json.dumps(asdict(found), indent=1))
    if not found.passed:
        sys.exit(1)
