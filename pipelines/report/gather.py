"""The data of a report, read from a dataset; `page` and `thumbnails` draw it.

Counts come from `summarise`. The few objects that the report shows are chosen by the hashes of
their ids.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.storage import Storage
from dataset.catalog.event_columns import LIST, REMOVE
from dataset.catalog.event_log import Catalog
from filters.chain import CHAIN
from filters.shape import OCCUPANCY, RENDERED_OCCUPANCY
from filters.verdict import Verdict
from pipelines.building.build_config import BuildConfig
from pipelines.building.dataset_status import DatasetState, load_dataset_state, summarise
from pipelines.building.stages.fetch import RAW, SHA256
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.pack import SAMPLE, SHARD

__all__ = [
    "DroppedObject",
    "FailedObject",
    "FilterInfo",
    "KeptObject",
    "LicenceCount",
    "ReportData",
    "SampleSizes",
    "gather",
]

_COVERAGE = {link.name: link.needs for link in (OCCUPANCY, RENDERED_OCCUPANCY)}
"""For each filter on the share of each view that an object covers, the stage that measures it."""
_MAX_LICENCES = 20
"""Rows of the table of licences: if licences are free text, there may be one per object."""


@dataclass(frozen=True, kw_only=True)
class SampleSizes:
    """The numbers of objects and shards that a report shows."""

    per_reason: int = 8
    per_kind: int = 8
    shards: int = 12
    per_shard: int = 3


@dataclass(frozen=True, kw_only=True)
class DroppedObject:
    """An object that a filter dropped, and the paths of its file."""

    asset_id: str
    name: str
    verdict: Verdict
    path: str
    """Path of its file below the source's root."""
    version: str
    """Version of that file, as the source listed it."""
    raw: str | None
    """Path of the copy below the dataset's root, if there is one."""
    sha256: str | None
    """SHA-256 of the file that was evaluated; None if the listing alone was enough."""
    view: int | None
    """The view of the rig in which the object covers the least, if that is why it was dropped."""


@dataclass(frozen=True, kw_only=True)
class FailedObject:
    """An object for which a stage failed."""

    asset_id: str
    name: str
    stage: str
    message: str
    log_tail: str


@dataclass(frozen=True, kw_only=True)
class KeptObject:
    """A kept object, with its shard and the key of its sample."""

    asset_id: str
    name: str
    caption: str
    licence: str | None
    shard: str
    sample: str


@dataclass(frozen=True, kw_only=True)
class FilterInfo:
    """A filter of the chain, and whether the last build used it."""

    name: str
    purpose: str
    enabled: bool


@dataclass(frozen=True, kw_only=True)
class LicenceCount:
    """The numbers of objects under one licence, or under `none stated` or `others`."""

    name: str
    listed: int
    kept: int


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """All data of a report, except pictures."""

    root: str
    config: BuildConfig
    """The configuration of the last build."""
    created: datetime
    summary: Mapping[str, Any]
    """The same values as `lrm status --json` prints."""
    filters: Sequence[FilterInfo]
    """All filters, in the order of the chain."""
    dropped: Mapping[str, Sequence[DroppedObject]]
    """For each reason, some of its objects."""
    failed: Mapping[str, Sequence[FailedObject]]
    """For each failure kind, some of its objects."""
    kept: Mapping[str, Sequence[KeptObject]]
    """For each chosen shard, some of its objects."""
    num_shards: int
    """The number of all shards with kept objects."""
    licences: Sequence[LicenceCount]
    """The most frequent licences, then all others together."""
    outcomes: pa.Table
    """The table that `Catalog.outcomes` returns."""


def gather(root: Storage, sizes: SampleSizes) -> ReportData:
    """Return a report's data. Raises BadInput or WorkFailed if the dataset cannot be read."""
    dataset_state = load_dataset_state(root)
    config = dataset_state.config
    chosen = _choose(root, dataset_state, sizes)
    return ReportData(
        root=root.uri,
        config=config,
        created=datetime.now(UTC),
        summary=summarise(dataset_state),
        filters=_filters(config, removed="removed" in chosen.dropped),
        dropped=chosen.dropped,
        failed=chosen.failed,
        kept=chosen.kept,
        num_shards=chosen.num_shards,
        licences=_licences(dataset_state),
        outcomes=Catalog(root).outcomes(),
    )


def _filters(config: BuildConfig, removed: bool) -> list[FilterInfo]:
    filters = []
    if removed:
        purpose = "Objects that were removed from the dataset by id."
        filters.append(FilterInfo(name=REMOVE.stage, purpose=purpose, enabled=True))
    for link in CHAIN:
        settings = getattr(config.filters, link.settings or link.name)
        purpose = (settings.__doc__ or "").strip().splitlines()[0]
        filters.append(FilterInfo(name=link.name, purpose=purpose, enabled=settings.enabled))
    return filters


# ---- Everything below reads the dataset state: licence counts and the choice of samples. ---------


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    dropped: dict[str, list[DroppedObject]]
    failed: dict[str, list[FailedObject]]
    kept: dict[str, list[KeptObject]]
    num_shards: int


def _choose(root: Storage, dataset_state: DatasetState, sizes: SampleSizes) -> _Chosen:
    """Choose objects for every reason, failure kind and chosen shard, by their smallest hashes."""
    ids = dataset_state.objects.ids.to_pylist()
    ranks = np.fromiter(map(_rank, ids), dtype=np.uint64, count=len(ids))

    def pick(groups: Mapping[str, np.ndarray], size: int) -> dict[str, list[int]]:
        return {
            name: rows[np.argsort(ranks[rows], kind="stable")[:size]].tolist()
            for name, rows in groups.items()
        }

    dropped = pick(_rows_by_reason(dataset_state), sizes.per_reason)
    failed = pick(_rows_by_kind(dataset_state), sizes.per_kind)
    shards = _rows_by_shard(dataset_state)
    chosen = sorted(sorted(shards, key=_rank)[: sizes.shards])
    kept = pick({shard: shards[shard] for shard in chosen}, sizes.per_shard)
    details = _Details(root, dataset_state, [*chain(*dropped.values()), *chain(*failed.values())])
    return _Chosen(
        dropped={name: [details.dropped(row) for row in rows] for name, rows in dropped.items()},
        failed={name: [details.failed(row) for row in rows] for name, rows in failed.items()},
        kept={
            name: [_kept(dataset_state.objects.state(i)) for i in rows]
            for name, rows in kept.items()
        },
        num_shards=len(shards),
    )


def _rows_by_reason(dataset_state: DatasetState) -> dict[str, np.ndarray]:
    decisions = dataset_state.decisions
    rows: dict[str, list[np.ndarray]] = defaultdict(list)
    for number, (_, reason) in enumerate(decisions.reasons):
        matches = np.flatnonzero(decisions.reason == number)
        if len(matches):
            rows[reason].append(matches)
    return {reason: np.concatenate(parts) for reason, parts in rows.items()}


def _rows_by_kind(dataset_state: DatasetState) -> dict[str, np.ndarray]:
    rows: dict[str, list[np.ndarray]] = defaultdict(list)
    for number, outcome in enumerate(dataset_state.decisions.outcomes):
        failed = np.flatnonzero(dataset_state.decisions.failed == number)
        if len(failed):
            kinds = dataset_state.objects.table[outcome.kind.key]
            for kind, matches in _groups(kinds, failed).items():
                rows[kind].append(matches)
    return {kind: np.concatenate(parts) for kind, parts in rows.items()}


def _rows_by_shard(dataset_state: DatasetState) -> dict[str, np.ndarray]:
    kept = np.flatnonzero(dataset_state.decisions.where("kept"))
    return _groups(dataset_state.objects.table[SHARD.key], kept) if len(kept) else {}


def _groups(column: pa.ChunkedArray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Group rows by the value of a text column."""
    names = column.take(pa.array(rows)).combine_chunks().dictionary_encode()
    codes = names.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    # The dictionary may contain values that none of these rows has.
    counts = np.bincount(codes, minlength=len(names.dictionary))
    parts = np.split(rows[order], np.cumsum(counts)[:-1])
    pairs = zip(names.dictionary.to_pylist(), parts, strict=True)
    return {name: part for name, part in pairs if len(part)}


class _Details:
    """Details of the chosen objects that are only in the event log."""

    def __init__(self, root: Storage, dataset_state: DatasetState, rows: list[int]) -> None:
        self._objects, self._decisions = dataset_state.objects, dataset_state.decisions
        catalog = Catalog(root)
        ids_by_stage: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            decision = dataset_state.decisions.at(row)
            if decision.failure is not None:
                ids_by_stage[decision.failure.stage].append(dataset_state.objects.ids[row].as_py())
            elif decision.dropped is not None and decision.dropped.filter in _COVERAGE:
                stage = _COVERAGE[decision.dropped.filter]
                ids_by_stage[stage].append(dataset_state.objects.ids[row].as_py())
        self._events = {
            stage: catalog.newest(ids, *dataset_state.decider.stage_rigs[stage])
            for stage, ids in ids_by_stage.items()
        }

    def dropped(self, row: int) -> DroppedObject:
        """Return a chosen object that a filter dropped."""
        state, verdict = self._objects.state(row), self._decisions.at(row).dropped
        assert verdict is not None
        event = self._events.get(_COVERAGE.get(verdict.filter, ""), {}).get(state.asset_id)
        shares = event.data["coverage"] if event is not None else None
        return DroppedObject(
            asset_id=state.asset_id,
            name=state.record.name,
            verdict=verdict,
            path=state.record.path,
            version=state.require(LIST.version),
            raw=state.get(RAW),
            sha256=state.get(SHA256),
            view=shares.index(min(shares)) if shares else None,
        )

    def failed(self, row: int) -> FailedObject:
        """Return a chosen object for which a stage failed."""
        state, failure = self._objects.state(row), self._decisions.at(row).failure
        assert failure is not None
        return FailedObject(
            asset_id=state.asset_id,
            name=state.record.name,
            stage=failure.stage,
            message=failure.message,
            log_tail=str(self._events[failure.stage][state.asset_id].data.get("log_tail", "")),
        )


def _kept(state: ObjectState) -> KeptObject:
    record = state.record
    return KeptObject(
        asset_id=record.asset_id,
        name=record.name,
        caption=record.caption or "",
        licence=record.licence,
        shard=state.require(SHARD),
        sample=state.require(SAMPLE),
    )


def _licences(dataset_state: DatasetState) -> list[LicenceCount]:
    column = dataset_state.objects.table[LIST.licence.key].fill_null("")
    listed = _counts(column)
    kept = _counts(column.filter(pa.array(dataset_state.decisions.where("kept"))))
    frequent = [name for name, _ in listed.most_common(_MAX_LICENCES)]
    counts = [
        LicenceCount(name=name or "none stated", listed=listed.pop(name), kept=kept.pop(name, 0))
        for name in frequent
    ]
    if listed:
        counts.append(LicenceCount(name="others", listed=listed.total(), kept=kept.total()))
    return counts


def _counts(column: pa.ChunkedArray) -> Counter[str]:
    return Counter({i["values"]: i["counts"] for i in pc.value_counts(column).to_pylist()})


def _rank(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
