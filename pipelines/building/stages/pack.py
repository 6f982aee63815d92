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
from dataset.views import SAMPLE_FORMAT
from pipelines.building.build_config import BuildConfig
from pipelines.building.stages.fetch import SHA256
from pipelines.building.stages.identities import Identities
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.picture_work import picture_bytes
from pipelines.building.stages.queues import PACK_QUEUE
from pipelines.building.stages.render import RENDER, STAGING, render_identity
from pipelines.building.stages.stage import FirstEstimate, ResultFile, RigScope, Stage
from pipelines.building.stages.worker_context import WorkerContext, seconds_before_retry

__all__ = [
    "PACK",
    "SAMPLE",
    "SAMPLE_LOCATION",
    "SHARD",
    "SHARDS",
    "SHARD_SHA256",
    "damaged_sample_location",
]

T = TypeVar("T")

SHARD = category("pack", "shard", "path of the shard that holds the sample", detail=True)
SAMPLE = text("pack", "sample", "the sample's key in the shard", detail=True)
SHARD_SHA256 = category("pack", "shard_sha256", "SHA-256 of the shard", detail=True)
SHARDS = "shards"
"""The folder of all shards."""
SAMPLE_LOCATION = (SHARD, SAMPLE, SHARD_SHA256)
"""The columns that locate a sample: its shard, its key there, and the shard's checksum."""
_FIXED_SECONDS, _SECONDS_PER_BYTE = 0.025, 5e-8
"""Core-seconds of a sample, and of each of its bytes (docs/notes/scale.md)."""
_MAX_FIXED_SECONDS, _MAX_SAMPLE_SECONDS = 1800.0, 60.0
"""Maximum seconds of a shard, and of each of its samples, with all attempts at a slow storage."""


@dataclass(frozen=True)
class _StagedSample:
    """A rendered sample that is not in a shard yet."""

    state: ObjectState
    key: str
    members: dict[str, bytes]


def _pack(states: Sequence[ObjectState], context: WorkerContext) -> list[Event]:
    """Write the rendered samples of several objects as one shard and return their events.

    The shard is named by its contents, so a repeated pack writes the same file. An object whose
    rendered sample is missing gets a failed render event; the next build renders it again. Samples
    of a damaged shard are written back into it, if that restores its former bytes.
    """
    started = time.monotonic()
    try:
        staged, lost_events = _retry_storage(lambda: _read_staged(states, context), context)
    except storage_errors() as error:
        message = f"cannot read the staged samples: {error}"
        return _storage_failures(states, message, context)
    restored_events = _restore(states, staged, context)
    if restored_events:
        return restored_events
    if not staged:
        return lost_events
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
        unpacked = [item.state for item in staged]
        message = f"cannot write {shard}: {error}"
        return lost_events + _storage_failures(unpacked, message, context)
    seconds = round((time.monotonic() - started) / len(staged), 3)
    return lost_events + [
        context.identities.event(
            PACK,
            item.state,
            data={SHARD.name: shard, SAMPLE.name: item.key, SHARD_SHA256.name: digest},
            seconds=seconds,
        )
        for item in staged
    ]


def damaged_sample_location(state: ObjectState, identities: Identities) -> dict[str, str] | None:
    """Return the values of SAMPLE_LOCATION of a sample that `lrm verify` found damaged.

    Returns None if the sample is intact, or if its file or settings have changed since.
    """
    events = PACK.events
    is_damaged = state.get(events.status) == CLEARED
    is_damaged = is_damaged and state.get(events.kind) == FailureKind.SAMPLE_DAMAGED
    is_same = state.get(events.content) == identities.content(PACK, state)
    is_same = is_same and state.get(events.settings) == identities.settings(PACK)
    if not (is_damaged and is_same):
        return None
    return {column.name: state.require(column) for column in SAMPLE_LOCATION}


def _retry_storage(work: Callable[[], T], context: WorkerContext) -> T:
    """Return the result of `work`, which is retried if the storage fails. Raises its last error."""
    return retry(
        work,
        attempts=context.config.execution.attempts,
        wait=seconds_before_retry,
        is_transient=lambda error: isinstance(error, storage_errors()),
    )


def _storage_failures(
    states: Sequence[ObjectState], message: str, context: WorkerContext
) -> list[Event]:
    """Return a failed pack event of the kind `storage` for each object."""
    failed = {"status": "failed", "kind": FailureKind.STORAGE, "message": message}
    return [context.identities.event(PACK, state, **failed) for state in states]


def _read_staged(
    states: Sequence[ObjectState], context: WorkerContext
) -> tuple[list[_StagedSample], list[Event]]:
    """Return the staged samples, and a failed render event for each that is missing or damaged.

    Raises one of `storage_errors()` if the storage cannot be read.
    """
    staged, lost_events = [], []
    for state in states:
        path = str(state.get(STAGING))
        try:
            key, members = read_sample_tar(context.root.read(path))
            if key != sample_key(state.asset_id):
                raise WorkFailed(f"{path} holds the sample {key}")
            staged.append(_StagedSample(state, key, members))
        except (FileNotFoundError, WorkFailed) as error:
            failed = {
                "status": "failed",
                "kind": FailureKind.STAGING_LOST,
                "message": str(error),
            }
            lost_events.append(context.identities.event(RENDER, state, **failed))
    return staged, lost_events


def _restore(
    states: Sequence[ObjectState], staged: Sequence[_StagedSample], context: WorkerContext
) -> list[Event]:
    """Restore the damaged shard that held these objects and return their events.

    Returns an empty list if the objects are not of one damaged shard, or if its former bytes cannot
    be restored.
    """
    locations = [damaged_sample_location(state, context.identities) for state in states]
    damaged = [location for location in locations if location is not None]
    shards = {location[SHARD.name] for location in damaged}
    if len(damaged) < len(locations) or len(shards) != 1:
        return []
    shard, sha256 = damaged[0][SHARD.name], damaged[0][SHARD_SHA256.name]
    donors = {item.key: item.members for item in staged}
    with context.scratch_file("shard.tar") as path:
        if not restore_shard(context.root, shard, sha256, donors, path):
            return []
    pairs = zip(states, damaged, strict=True)
    return [context.identities.event(PACK, state, data=dict(location)) for state, location in pairs]


def _max_seconds(config: BuildConfig) -> float:
    return _MAX_FIXED_SECONDS + _MAX_SAMPLE_SECONDS * config.shards.samples_per_shard


def _estimate(config: BuildConfig) -> FirstEstimate:
    return FirstEstimate(seconds=_FIXED_SECONDS + _SECONDS_PER_BYTE * picture_bytes(config))


PACK = Stage(
    name="pack",
    inputs=("render",),
    input_version=SHA256,
    identity=render_identity,
    version=SAMPLE_FORMAT,
    rig=RigScope.CAMERAS,
    enabled_by=lambda _: True,
    columns=SAMPLE_LOCATION,
    queue=PACK_QUEUE,
    run_group=_pack,
    max_seconds=_max_seconds,
    timeout_kind=FailureKind.STORAGE,
    estimate=_estimate,
    file=ResultFile(location=SAMPLE_LOCATION, folder=SHARDS),
)
