"""What commands make of a disk that lost power, compared with an undisturbed run."""

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos.loss_scenarios import FEW, Disk, Scenario
from core.errors import first_line
from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from dataset.snapshots.manifests import manifests
from dataset.snapshots.snapshot import open_snapshot
from pipelines.building.dataset_status import load_dataset_state
from pipelines.building.decide import STATES
from pipelines.export.create_snapshot import kept_samples
from tests.support.disk_losses import Loss, write_tree
from tests.support.durable_files import CrashPoint, DiskRecorder
from tests.support.lrm import Answer, run_lrm

__all__ = ["Recording", "Recovery", "record", "recover"]

_CODES = (0, 1, 2)
_REPAIR = "lrm repair"

EventKey = tuple[str, ...]
"""Run, object, stage and status of an event."""


@dataclass(kw_only=True)
class Recording:
    """An undisturbed run of a command."""

    words: Sequence[str]
    points: list[CrashPoint] = field(default_factory=list)
    committed: list[int] = field(default_factory=list)
    """For each point the number of events that were committed before."""
    events: list[EventKey] = field(default_factory=list)
    """The events in the catalog, in the order of their commits."""
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Recovery:
    """What happened on one disk."""

    problem: str = ""
    """What went wrong; empty if nothing did."""
    repaired: bool = False
    damage: str = ""
    """The first damage that `lrm verify` found; empty if there was none."""


def record(scenario: Scenario, disk: Disk) -> Recording:
    """Run a command on a new dataset without a loss. Raises RuntimeError if it fails."""
    recording = Recording(words=scenario.prepare(disk))
    if disk.root.exists():
        recording.events = _events(disk)
    scenario.spoil(disk)

    def add(point: CrashPoint) -> None:
        recording.points.append(point)
        recording.committed.append(len(recording.events))

    with _recorded_commits(recording.events), DiskRecorder(disk.folder, add) as recorder:
        answer = run_lrm(*recording.words)
        recorder.point("the end")
    _require(answer.code in (0, scenario.again), answer)
    for command in scenario.then:
        answer = run_lrm(*disk.words(command))
        _require(answer.code == 0, answer)
    recording.result = _content(disk)
    return recording


def _require(condition: bool, answer: Answer) -> None:
    if not condition:
        raise RuntimeError(f"the undisturbed command failed: {answer.err}")


@contextlib.contextmanager
def _recorded_commits(events: list[EventKey]) -> Iterator[None]:
    """Append the events of each commit of this process once it is reported as done."""
    commit = Catalog.commit

    def recorded(self: Catalog, batch_events: Sequence[Event], run: str, *arguments: Any) -> None:
        commit(self, batch_events, run, *arguments)
        events.extend((run, e.asset_id, e.stage, e.status) for e in batch_events)

    setattr(Catalog, "commit", recorded)  # noqa: B010 - a method
    try:
        yield
    finally:
        setattr(Catalog, "commit", commit)  # noqa: B010


def recover(scenario: Scenario, disk: Disk, recording: Recording, loss: Loss) -> Recovery:
    """Continue on a disk that lost power, and compare the result with the undisturbed run.

    The command is repeated, unless it had ended with success before the loss.
    """
    shutil.rmtree(disk.folder)
    disk.folder.mkdir()
    write_tree(disk.folder, loss.tree)
    recovery = Recovery()
    try:
        _continue(scenario, disk, recording, loss, recovery)
    except _Failed as error:
        recovery.problem = str(error)
    return recovery


class _Failed(Exception):
    """A command did not do what it must do."""


def _continue(
    scenario: Scenario,
    disk: Disk,
    recording: Recording,
    loss: Loss,
    recovery: Recovery,
) -> None:
    root = ("--root", disk.root)
    if scenario.command == "repair" and not loss.is_done:
        # An interrupted repair is continued before anything else.
        _lrm(*recording.words, codes=(0,))
    committed = recording.committed[loss.step]
    status = _lrm("status", *root)
    if status.code == 1 and _REPAIR in status.err:
        recovery.repaired = True
        _lrm("repair", *root, codes=(0,))
        _lrm("status", *root, codes=(0,))
    lost = Counter(recording.events[:committed]) - Counter(_events(disk))
    if lost:
        raise _Failed(f"{lost.total()} committed events are lost, such as {next(iter(lost))[2:]}")
    if committed:
        verified = _lrm("verify", *root)
        if verified.code == 1:
            recovery.damage = _first_damage(verified)
            if _REPAIR in verified.out + verified.err:
                recovery.repaired = True
                _lrm("repair", *root, codes=(0,))
            _lrm(*disk.words(f"build --limit {_limit(recording.words)}"), codes=(0,))
    if not loss.is_done:
        _lrm(*recording.words, codes=(0, scenario.again))
    for command in scenario.then:
        _lrm(*disk.words(command), codes=(0,))
    _lrm("verify", *root, codes=(0,))
    _compare(_content(disk), recording.result)


def _first_damage(verified: Answer) -> str:
    lines = (verified.out + verified.err).strip().splitlines()
    return lines[0] if lines else "damage"


def _limit(words: Sequence[str]) -> str:
    return words[words.index("--limit") + 1] if "--limit" in words else FEW


def _lrm(*words: Any, codes: Sequence[int] = _CODES) -> Answer:
    """Run a command. Raises _Failed if it ends otherwise than with a code and a line."""
    shown = " ".join(str(word) for word in words[:1])
    try:
        answer = run_lrm(*words)
    except Exception as error:
        raise _Failed(f"lrm {shown}: {type(error).__name__}: {first_line(error)}") from error
    last = (answer.err.strip().splitlines() or [""])[-1]
    if answer.code not in codes:
        raise _Failed(f"lrm {shown}: exit code {answer.code}: {last}")
    if answer.code == 2 and not last.startswith("lrm"):
        raise _Failed(f"lrm {shown}: no line of error: {last}")
    return answer


def _events(disk: Disk) -> list[EventKey]:
    """Return the events in the catalog in their order; none if there is no dataset."""
    try:
        batches = Catalog(Storage(str(disk.root))).since(0)
        rows = [row for batch in batches for row in batch.to_pylist()]
    except Exception as error:
        raise _Failed(f"the catalog: {type(error).__name__}: {first_line(error)}") from error
    rows.sort(key=lambda row: row["seq"])
    return [(row["run"], row["asset_id"], row["stage"], row["status"]) for row in rows]


def _content(disk: Disk) -> dict[str, Any]:
    """Return the states and samples of all objects, the snapshots, shards and exported files."""
    root = Storage(str(disk.root))
    state = load_dataset_state(root)
    ids = state.objects.ids.to_pylist()
    samples = {sample.asset_id: sample for sample in kept_samples(root, state, 0.0)}
    out = disk.folder / "out"
    files = [path for path in out.rglob("*") if path.is_file() and path.parts[-1][0] != "."]
    return {
        "states": dict(zip(ids, [STATES[code] for code in state.decisions.state], strict=True)),
        "samples": {
            asset_id: (sample.render_key, sample.shard, sample.entry)
            for asset_id, sample in samples.items()
        },
        "snapshots": {
            each["snapshot"]: (each["names"], len(open_snapshot(root, each["snapshot"]).samples))
            for each in manifests(root)
        },
        "shards": root.list_files("shards/lrm32"),
        "exported": {str(path.relative_to(out)): path.read_bytes() for path in files},
    }


def _compare(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        if actual[name] != value:
            raise _Failed(f"{name} differ from those of an undisturbed run")
