"""Pack: write the rendered samples of several objects as one shard with its index."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from core.errors import WorkFailed
from core.failures import FailureKind
from core.retry import retry
from core.storage import storage_errors
from dataset.catalog.event_columns import CLEARED
from dataset.catalog.event_log import Event
from dataset.columns import category, text
from dataset.format.shards import read_sample_tar, write_shard
from dataset.maintenance.repair import restore_shard
from dataset.object_record import sample_key
from pipelines.building.stages.fetch import SHA256
from pipelines.building.stages.identities import Identities
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.queues import PACK_QUEUE
from pipelines.building.stages.render import RENDER, STAGING, render_identity
from pipelines.building.stages.stage import FirstEstimate, ResultFile, RigScope, Stage
from pipelines.building.stages.worker_context import WorkerContext, seconds_before_retry

__all__ = ["PACK", "SAMPLE", "SAMPLE_PLACE", "SHARD", "SHARDS", "SHARD_SHA256", "broken_shard"]

T = TypeVar("T")

SHARD = category("pack", "shard", "the shard that holds the sample", detail=True)
SAMPLE = text("pack", "sample", "the sample's key in the shard", detail=True)
SHARD_SHA256 = category("pack", "shard_sha256", "SHA-256 of the shard", detail=True)
SHARDS = "shards"
"""The folder of all shards."""
SAMPLE_PLACE = (SHARD, SAMPLE, SHARD_SHA256)
"""Where the sample lies."""


@dataclass(frozen=True)
class _Staged:
    state: ObjectState
    key: str
    members: dict[str, bytes]


def _pack(states: Sequence[ObjectState], context: WorkerContext) -> list[Event]:
    """Write the rendered samples of several objects as one shard.

    The shard is named by its contents, so repeating a pack repeats the same file. An object whose
    rendered sample is gone gets a failed render event and is rendered again by the next build.
    Samples of one damaged shard are put back into it, if that gives the bytes it had.
    """
    started = time.monotonic()
    try:
        staged, lost = _retry_storage(lambda: _read_staged(states, context), context)
    except storage_errors() as error:
        return _unpacked(states, f"staging: {error}", context)
    restored = _restore(states, staged, context)
    if restored:
        return restored
    if not staged:
        return lost
    names = "\n".join(context.identities.key(PACK, item.state) for item in staged)
    name = hashlib.sha256(names.encode()).hexdigest()[:16]
    shard = f"{SHARDS}/{context.rig.name}/{name}.tar"

    def write() -> str:
        samples = ((item.key, item.members) for item in staged)
        with context.scratch_file("shard.tar") as path:
            return write_shard(context.root, samples, path, name=lambda _: shard)[1]

    try:
        digest = _retry_storage(write, context)
    except storage_errors(WorkFailed) as error:
        return lost + _unpacked([item.state for item in staged], f"{shard}: {error}", context)
    seconds = round((time.monotonic() - started) / len(staged), 3)
    return lost + [
        context.identities.event(
            PACK,
            item.state,
            data={SHARD.name: shard, SAMPLE.name: item.key, SHARD_SHA256.name: digest},
            seconds=seconds,
        )
        for item in staged
    ]


def broken_shard(state: ObjectState, identities: Identities) -> dict[str, str] | None:
    """Return where an object's sample lay (SAMPLE_PLACE), if `lrm verify` found it damaged."""
    events = PACK.events
    broken = state.get(events.status) == CLEARED
    broken = broken and state.get(events.kind) == FailureKind.SAMPLE_DAMAGED
    same = state.get(events.content) == identities.content(PACK, state)
    if not broken or not same or state.get(events.settings) != identities.settings(PACK):
        return None
    return {column.name: state.require(column) for column in SAMPLE_PLACE}


def _retry_storage(work: Callable[[], T], context: WorkerContext) -> T:
    """Return what `work` returns, retried while the storage fails. Raises its last error."""
    return retry(
        work,
        attempts=context.config.execution.attempts,
        wait=seconds_before_retry,
        is_transient=lambda error: isinstance(error, storage_errors()),
    )


def _unpacked(states: Sequence[ObjectState], message: str, context: WorkerContext) -> list[Event]:
    failed = {"status": "failed", "kind": FailureKind.STORAGE, "message": message}
    return [context.identities.event(PACK, state, **failed) for state in states]


def _read_staged(
    states: Sequence[ObjectState], context: WorkerContext
) -> tuple[list[_Staged], list[Event]]:
    """Return the staged samples, and a failed render event for each that is gone.

    Raises an error of the storage if it cannot be asked.
    """
    staged, lost = [], []
    for state in states:
        path = str(state.get(STAGING))
        try:
            key, members = read_sample_tar(context.root.read(path))
            if key != sample_key(state.asset_id):
                raise WorkFailed(f"{path} holds {key}")
            staged.append(_Staged(state, key, members))
        except (FileNotFoundError, WorkFailed) as error:
            failed = {
                "status": "failed",
                "kind": FailureKind.STAGING_LOST,
                "message": str(error),
            }
            lost.append(context.identities.event(RENDER, state, **failed))
    return staged, lost


def _restore(
    states: Sequence[ObjectState], staged: Sequence[_Staged], context: WorkerContext
) -> list[Event]:
    """Mend the damaged shard that these objects lay in; returns nothing if that cannot be."""
    places = [broken_shard(state, context.identities) for state in states]
    damaged = [place for place in places if place is not None]
    if len(damaged) < len(places) or len({place[SHARD.name] for place in damaged}) != 1:
        return []
    shard, sha256 = damaged[0][SHARD.name], damaged[0][SHARD_SHA256.name]
    donors = {item.key: item.members for item in staged}
    with context.scratch_file("shard.tar") as path:
        if not restore_shard(context.root, shard, sha256, donors, path):
            return []
    pairs = zip(states, damaged, strict=True)
    return [context.identities.event(PACK, state, data=dict(place)) for state, place in pairs]


PACK = Stage(
    name="pack",
    inputs=("render",),
    made_from=SHA256,
    identity=render_identity,
    rig=RigScope.CAMERAS,
    is_wanted=lambda _: True,
    columns=SAMPLE_PLACE,
    queue=PACK_QUEUE,
    run_group=_pack,
    estimate=lambda _: FirstEstimate(seconds=0.2),
    file=ResultFile(place=SAMPLE_PLACE, folder=SHARDS),
)
