"""Compare a build with random faults to an undisturbed build.

`python -m benchmarks chaos_build --source DIR` builds a dataset on a Ray cluster of two nodes on
this machine, into an S3 store that refuses requests and loses answers. At random times it kills
Blender children, Ray workers, raylets, the driver, and the driver during a commit; it fills the
scratch disk, and makes the store unavailable. When a driver ends, the same command is started
again, as an operator does. At the end both builds must have the same samples, otherwise the exit
code is 1. It prints one line per fault, then the outcome as JSON. docs/notes/reliability.md shows
the result of a run.
"""

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

from benchmarks.help_text import benchmark_parser
from core.storage import Storage
from dataset.catalog.event_log import Catalog
from dataset.snapshots.snapshot import open_snapshot
from pipelines.demo.demo_mirror import CAPTIONS_FILE, write_demo_source
from tests.support.fake_cluster import FakeCluster, processes_with
from tests.support.flaky_store import flaky_store, kill_at_commit, start_outage, switch_faults
from tests.support.paths import REPOSITORY

__all__ = ["KINDS", "Outcome", "chaos"]

KINDS = ("blender", "worker", "raylet", "driver", "commit", "disk", "store")
_NODES = 2
_SCRATCH_MEGABYTES = 192
_SCRATCH = "CHAOS_SCRATCH"
"""Environment variable with the folder of the small disk that is filled."""
_SETTINGS = (
    "--blender.threads 1 --execution.commit-seconds 1 --fetch.backoff-seconds 0.2 "
    "--shards.samples-per-shard 4"
).split()
_MAX_LAST_BUILDS = 5


@dataclass(kw_only=True)
class Outcome:
    """The disturbed builds compared with the undisturbed one."""

    faults: dict[str, int] = field(default_factory=dict)
    store_faults: dict[str, int] = field(default_factory=dict)
    """Faults of the store by kind, during the whole run: `slow`, `cut`, `lost`."""
    builds: int = 0
    """Number of disturbed datasets; each is compared."""
    driver_starts: int = 0
    seconds: float = 0.0
    undisturbed_seconds: float = 0.0
    objects: int = 0
    samples: int = 0
    """Number of samples in one dataset."""
    again: dict[str, int] = field(default_factory=dict)
    """By stage: the number of events beyond those of the undisturbed build."""
    passing_failures: dict[str, int] = field(default_factory=dict)
    """By kind: the number of failures that a later attempt resolved."""
    differences: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the datasets equal the undisturbed one and no process is left."""
        return not self.differences and not self.orphans


class _Operator:
    """An operator that repeats the same `lrm build` until it succeeds."""

    def __init__(self, words: Sequence[str], log: Path, until: float) -> None:
        self._command = [sys.executable, "-m", "pipelines.cli", "build", *words]
        self._log, self._until = log, until
        self.starts = 0
        self.start()

    def start(self) -> None:
        """Start the command."""
        self.starts += 1
        with open(self._log, "ab") as log:
            self.driver = subprocess.Popen(self._command, stdout=log, stderr=log, cwd="/")

    def watch(self, seconds: float) -> bool:
        """Restart a failed driver for `seconds`; return whether the build is done."""
        end = time.monotonic() + seconds
        while True:
            code = self.driver.poll()
            if code == 0:
                return True
            if code is not None:
                self.start()
            if time.monotonic() > self._until:
                raise RuntimeError(f"the build exceeded the time limit: {self.tail()}")
            if time.monotonic() > end:
                return False
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill the driver if it runs."""
        if self.driver.poll() is None:
            self.driver.kill()
        self.driver.wait()

    def tail(self) -> str:
        """Return the end of the driver's log."""
        return self._log.read_text(errors="replace")[-2000:]


class _Faults:
    """Faults of a cluster, its scratch disk and its object store."""

    def __init__(self, cluster: FakeCluster, address: str, rng: random.Random) -> None:
        self._cluster, self._address, self._random = cluster, address, rng
        self._causes: dict[str, Callable[[_Operator], bool]] = {
            "blender": lambda _: self._kill_process("render.blender.worker"),
            "worker": lambda _: self._kill_process("ray::lrm"),
            "raylet": self._lose_node,
            "driver": self._kill_driver,
            "commit": self._kill_committer,
            "disk": self._fill_disk,
            "store": self._stop_store,
        }

    def cause(self, kind: str, operator: _Operator) -> bool:
        """Cause one fault; return False if there was no target for it."""
        self._cluster.replace_lost_nodes()
        return self._causes[kind](operator)

    def _kill_process(self, part: str) -> bool:
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
        """Have the store's proxy kill the driver when the next commit's file arrives."""
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

    def _stop_store(self, _: _Operator) -> bool:
        start_outage(self._address, self._random.uniform(3, 12))
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
    """Build without faults, then with the faults `kinds` in this order, and compare the datasets.

    A new dataset is started when one is complete before all faults were caused. Raises
    RuntimeError if the undisturbed build fails, or after `deadline` seconds.
    """
    until = time.monotonic() + deadline
    words = ["--source", str(source), "--captions", str(source / CAPTIONS_FILE)]
    words += [*_SETTINGS, *settings]
    outcome = Outcome()
    undisturbed = Storage(str(folder / "undisturbed"))
    started = time.monotonic()
    _lrm("build", *words, "--root", undisturbed.uri, "--address", "none")
    outcome.undisturbed_seconds = round(time.monotonic() - started, 1)
    expected = _Dataset.read(undisturbed)
    outcome.objects, outcome.samples = len(expected.outcomes), len(expected.samples)

    token, rng = uuid.uuid4().hex, random.Random(seed)
    remaining = list(kinds)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(flaky_store())
        # The nodes inherit these variables.
        os.environ |= {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "chaos"}
        os.environ |= {"AWS_SECRET_ACCESS_KEY": "chaos", "AWS_DEFAULT_REGION": "us-east-1"}
        cluster = stack.enter_context(FakeCluster(_NODES, {"CPU": 1.0}, token))
        boto3.resource("s3").create_bucket(Bucket="chaos")
        injector = _Faults(cluster, address, rng)
        while remaining:
            outcome.builds += 1
            root = Storage(f"s3://chaos/build-{outcome.builds}")
            build_options = [*words, "--root", root.uri]
            on_cluster = ["--address", cluster.address, "--wait"]
            operator = _Operator(
                [*build_options, *on_cluster], folder / f"build-{outcome.builds}.log", until
            )
            try:
                while not operator.watch(rng.uniform(1, most_seconds_between)) and remaining:
                    kind = remaining.pop(0)
                    if injector.cause(kind, operator):
                        outcome.faults[kind] = outcome.faults.get(kind, 0) + 1
                        print(f"{sum(outcome.faults.values())}: {kind}", flush=True)
                    else:
                        remaining.append(kind)  # there was no target for this kind; try again later
                while not operator.watch(5.0):
                    pass
            finally:
                operator.kill()
            outcome.driver_starts += operator.starts + _finish(build_options, on_cluster, until)
            _compare(_Dataset.read(root), expected, outcome)
        outcome.store_faults = switch_faults(address)
    outcome.seconds = round(time.monotonic() - started, 1)
    # Ray's helper processes end a moment after the processes that they served.
    _, alive = psutil.wait_procs(processes_with(token), timeout=60)
    outcome.orphans = [" ".join(process.cmdline())[:200] for process in alive]
    return outcome


def _finish(words: Sequence[str], on_cluster: Sequence[str], until: float) -> int:
    """Repeat the build until no work is left, to retry failed objects; return how many builds."""
    for number in range(_MAX_LAST_BUILDS):
        if not json.loads(_lrm("plan", *words, "--json"))["work"]:
            return number
        if time.monotonic() > until:
            break
        _lrm("build", *words, *on_cluster)
    raise RuntimeError(f"after {_MAX_LAST_BUILDS} more builds `lrm plan` still lists work")


@dataclass(frozen=True, kw_only=True)
class _Dataset:
    """The content of a dataset, for the comparison."""

    samples: dict[str, Any]
    """By asset id: names, sizes and checksums of the members."""
    duplicates: list[str]
    """Asset ids that the snapshot has more than once."""
    outcomes: dict[str, dict[str, str]]
    """By asset id and stage: status and failure kind of the last event."""
    events: Counter[str]
    """Number of events by stage."""
    failures: Counter[str]
    """Number of failures by kind, resolved ones included."""
    findings: list[Any]
    """Findings of `lrm verify`, which reads every byte of every shard."""
    staged: list[str]
    """Files that are still in the staging folder."""

    @classmethod
    def read(cls, root: Storage) -> "_Dataset":
        snapshot = json.loads(_lrm("snapshot", "--root", root.uri, "--json"))["snapshot"]
        samples: dict[str, Any] = {}
        duplicates = []
        for sample in open_snapshot(root, snapshot).samples:
            if sample.asset_id in samples:
                duplicates.append(sample.asset_id)
            entry = sample.entry
            samples[sample.asset_id] = [entry.members, entry.sizes, entry.crc32]
        rows = [row for batch in Catalog(root).since(0) for row in batch.to_pylist()]
        outcomes: dict[str, dict[str, str]] = defaultdict(dict)
        for row in sorted(rows, key=lambda row: row["seq"]):
            outcomes[row["asset_id"]][row["stage"]] = f"{row['status']} {row['kind'] or ''}".strip()
        return cls(
            samples=samples,
            duplicates=duplicates,
            outcomes=outcomes,
            events=Counter(row["stage"] for row in rows),
            failures=Counter(row["kind"] for row in rows if row["status"] == "failed"),
            findings=json.loads(_lrm("verify", "--root", root.uri, "--json"))["findings"],
            staged=root.list_files("staging"),
        )


def _compare(disturbed: _Dataset, undisturbed: _Dataset, outcome: Outcome) -> None:
    """Record in `outcome` where a disturbed dataset differs from the undisturbed one."""
    differences, build = outcome.differences, f"build {outcome.builds}"
    for name in sorted(undisturbed.samples.keys() | disturbed.samples.keys()):
        if disturbed.samples.get(name) != undisturbed.samples.get(name):
            in_both = name in disturbed.samples and name in undisturbed.samples
            state = "other" if in_both else "lost or new"
            differences.append(f"{build}: {name}: {state} bytes")
    for name in sorted(undisturbed.outcomes.keys() | disturbed.outcomes.keys()):
        actual, expected = disturbed.outcomes.get(name), undisturbed.outcomes.get(name)
        if actual != expected:
            differences.append(f"{build}: {name}: {actual}, undisturbed {expected}")
    differences += [f"{build}: {name}: twice in the snapshot" for name in disturbed.duplicates]
    differences += [f"{build}: {finding}" for finding in disturbed.findings]
    differences += [f"{build}: {name}: still in the staging folder" for name in disturbed.staged]
    again = Counter(outcome.again) + (disturbed.events - undisturbed.events)
    outcome.again = dict(sorted(again.items()))
    resolved = Counter(outcome.passing_failures) + (disturbed.failures - undisturbed.failures)
    outcome.passing_failures = dict(sorted(resolved.items()))


def _lrm(*words: str) -> str:
    """Run a command and return its standard output. Raises RuntimeError if it fails."""
    command = [sys.executable, "-m", "pipelines.cli", *words]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, cwd="/"
    )
    if process.returncode:
        raise RuntimeError(
            f"lrm {words[0]} failed, exit code {process.returncode}: {process.stderr}"
        )
    return process.stdout


def _run_on_small_disk(scratch: Path) -> int:
    """Run this command in a mount namespace in which the scratch folder is a small disk."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = f"mount -t tmpfs -o size={_SCRATCH_MEGABYTES}m none {scratch}"
    arguments = [sys.executable, "-m", "benchmarks", "chaos_build", *sys.argv[1:]]
    environment = {**os.environ, _SCRATCH: str(scratch), "TMPDIR": str(scratch)}
    # Ray's folder stays on the large disk.
    environment |= {"RAY_TMPDIR": str(scratch.parent), "PYTHONPATH": str(REPOSITORY)}
    command = [*unshare, "sh", "-c", f'{mount} && exec "$@"', "sh", *arguments]
    return subprocess.run(command, check=False, env=environment).returncode


def main() -> None:
    """Print the outcome; exit 1 if a disturbed build differs from the undisturbed one."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add(
        "--source",
        type=Path,
        help="folder of models in Objaverse's layout [default: the demo's objects]",
    )
    add("--faults", type=int, default=63, help="number of faults")
    add(
        "--kinds",
        nargs="+",
        choices=KINDS,
        default=KINDS,
        metavar="KIND",
        help=f"kinds of faults: {', '.join(KINDS)}; `disk` needs user namespaces [default: all]",
    )
    add(
        "--most-seconds-between",
        type=float,
        default=12.0,
        help="maximum time between two faults, in seconds",
    )
    add("--seed", type=int, default=0, help="seed of the order and times of the faults")
    add("--json", type=Path, metavar="FILE", help="also write the outcome to this file")
    add("settings", nargs="*", help="further options of `lrm build`, after --")
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
        outcome = chaos(
            Path(name),
            source.absolute(),
            kinds,
            args.settings,
            seed=args.seed,
            most_seconds_between=args.most_seconds_between,
        )
    if args.json:
        args.json.write_text(json.dumps(asdict(outcome), indent=1))
    print(json.dumps(asdict(outcome), indent=1))
    if not outcome.passed:
        sys.exit(1)
