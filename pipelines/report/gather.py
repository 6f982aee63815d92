"""What a report says: plain data, read from a dataset. Nothing here draws.

Counts come from `summarise`; objects are visited only to choose, by the hash of their ids, the few
that the report shows.
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
from pipelines.building.dataset_status import Standing, load_standing, summarise
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
"""Per filter on how much of each view an object fills, the stage that measured that."""
_MOST_LICENCES = 20
"""In a source whose licences are free text there may be as many as objects."""


@dataclass(frozen=True, kw_only=True)
class SampleSizes:
    """How many objects a report shows."""

    per_reason: int = 8
    per_kind: int = 8
    shards: int = 12
    per_shard: int = 3


@dataclass(frozen=True, kw_only=True)
class DroppedObject:
    """An object that a filter dropped, and where its file may be had."""

    asset_id: str
    name: str
    verdict: Verdict
    path: str
    """Of its file below the source's root."""
    version: str
    """Of that file, as the source listed it."""
    raw: str | None
    """Of the copy below the dataset's root, if there is one."""
    sha256: str | None
    """Of the file that was judged; None if its listing was enough."""
    view: int | None
    """The view of the rig that shows why, if one does."""


@dataclass(frozen=True, kw_only=True)
class FailedObject:
    """An object that a stage could not be done for."""

    asset_id: str
    name: str
    stage: str
    message: str
    log_tail: str


@dataclass(frozen=True, kw_only=True)
class KeptObject:
    """An object with its place in a shard."""

    asset_id: str
    name: str
    caption: str
    licence: str | None
    shard: str
    sample: str


@dataclass(frozen=True, kw_only=True)
class FilterInfo:
    """A filter of the chain."""

    name: str
    purpose: str
    enabled: bool


@dataclass(frozen=True, kw_only=True)
class LicenceCount:
    """Objects under one licence, or `none stated`, or `others`."""

    name: str
    listed: int
    kept: int


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """All that a report says."""

    root: str
    config: BuildConfig
    """Of the last build."""
    made: datetime
    summary: Mapping[str, Any]
    """As `lrm status --json`."""
    filters: Sequence[FilterInfo]
    """In the order of the chain."""
    dropped: Mapping[str, Sequence[DroppedObject]]
    """By reason, some of each."""
    failed: Mapping[str, Sequence[FailedObject]]
    """By kind, some of each."""
    kept: Mapping[str, Sequence[KeptObject]]
    """By shard, some of some."""
    num_shards: int
    licences: Sequence[LicenceCount]
    """The most frequent ones, then the others together."""
    endings: pa.Table
    """As `Catalog.endings` returns it."""


def gather(root: Storage, sizes: SampleSizes) -> ReportData:
    """Read everything but pictures. Raises BadInput or WorkFailed if the dataset is unreadable."""
    standing = load_standing(root)
    config = standing.config
    chosen = _choose(root, standing, sizes)
    return ReportData(
        root=root.uri,
        config=config,
        made=datetime.now(UTC),
        summary=summarise(root),
        filters=_filters(config, removed="removed" in chosen.dropped),
        dropped=chosen.dropped,
        failed=chosen.failed,
        kept=chosen.kept,
        num_shards=chosen.num_shards,
        licences=_licences(standing),
        endings=Catalog(root).endings(),
    )


def _filters(config: BuildConfig, removed: bool) -> list[FilterInfo]:
    found = []
    if removed:
        purpose = "Objects that were taken out of the dataset by name."
        found.append(FilterInfo(name=REMOVE.stage, purpose=purpose, enabled=True))
    for link in CHAIN:
        settings = getattr(config.filters, link.settings or link.name)
        purpose = (settings.__doc__ or "").strip().splitlines()[0]
        found.append(FilterInfo(name=link.name, purpose=purpose, enabled=settings.enabled))
    return found


# ---- Everything below reads a Standing: the counts of licences and the choice of samples. --------


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    dropped: dict[str, list[DroppedObject]]
    failed: dict[str, list[FailedObject]]
    kept: dict[str, list[KeptObject]]
    num_shards: int


def _choose(root: Storage, standing: Standing, sizes: SampleSizes) -> _Chosen:
    """The objects to show of every reason, kind and chosen shard: those of the least hashes."""
    ids = standing.objects.ids.to_pylist()
    ranks = np.fromiter(map(_rank, ids), dtype=np.uint64, count=len(ids))

    def pick(groups: Mapping[str, np.ndarray], size: int) -> dict[str, list[int]]:
        return {
            name: rows[np.argsort(ranks[rows], kind="stable")[:size]].tolist()
            for name, rows in groups.items()
        }

    dropped = pick(_rows_by_reason(standing), sizes.per_reason)
    failed = pick(_rows_by_kind(standing), sizes.per_kind)
    shards = _rows_by_shard(standing)
    shown = sorted(sorted(shards, key=_rank)[: sizes.shards])
    kept = pick({shard: shards[shard] for shard in shown}, sizes.per_shard)
    details = _Details(root, standing, [*chain(*dropped.values()), *chain(*failed.values())])
    return _Chosen(
        dropped={name: [details.dropped(row) for row in rows] for name, rows in dropped.items()},
        failed={name: [details.failed(row) for row in rows] for name, rows in failed.items()},
        kept={
            name: [_kept(standing.objects.state(i)) for i in rows] for name, rows in kept.items()
        },
        num_shards=len(shards),
    )


def _rows_by_reason(standing: Standing) -> dict[str, np.ndarray]:
    decisions = standing.decisions
    rows: dict[str, list[np.ndarray]] = defaultdict(list)
    for number, (_, reason) in enumerate(decisions.reasons):
        found = np.flatnonzero(decisions.reason == number)
        if len(found):
            rows[reason].append(found)
    return {reason: np.concatenate(parts) for reason, parts in rows.items()}


def _rows_by_kind(standing: Standing) -> dict[str, np.ndarray]:
    rows: dict[str, list[np.ndarray]] = defaultdict(list)
    for place, stage in enumerate(standing.decisions.stages):
        here = np.flatnonzero(standing.decisions.failed == place)
        if len(here):
            for kind, found in _groups(standing.objects.table[stage.events.kind.key], here).items():
                rows[kind].append(found)
    return {kind: np.concatenate(parts) for kind, parts in rows.items()}


def _rows_by_shard(standing: Standing) -> dict[str, np.ndarray]:
    kept = np.flatnonzero(standing.decisions.where("kept"))
    return _groups(standing.objects.table[SHARD.key], kept) if len(kept) else {}


def _groups(column: pa.ChunkedArray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Some rows of a column of text, by its value there."""
    names = column.take(pa.array(rows)).combine_chunks().dictionary_encode()
    codes = names.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    # The dictionary may know values that none of these rows has.
    counts = np.bincount(codes, minlength=len(names.dictionary))
    parts = np.split(rows[order], np.cumsum(counts)[:-1])
    pairs = zip(names.dictionary.to_pylist(), parts, strict=True)
    return {name: part for name, part in pairs if len(part)}


class _Details:
    """What only the log of events says of the chosen objects."""

    def __init__(self, root: Storage, standing: Standing, rows: list[int]) -> None:
        self._objects, self._decisions = standing.objects, standing.decisions
        catalog = Catalog(root)
        wanted: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            decision = standing.decisions.at(row)
            if decision.failure is not None:
                wanted[decision.failure.stage.name].append(standing.objects.ids[row].as_py())
            elif decision.dropped is not None and decision.dropped.filter in _COVERAGE:
                stage = _COVERAGE[decision.dropped.filter]
                wanted[stage].append(standing.objects.ids[row].as_py())
        self._events = {
            stage: catalog.newest(ids, *standing.decider.places[stage])
            for stage, ids in wanted.items()
        }

    def dropped(self, row: int) -> DroppedObject:
        """One of them, that a filter dropped."""
        state, verdict = self._objects.state(row), self._decisions.at(row).dropped
        assert verdict is not None
        judged = self._events.get(_COVERAGE.get(verdict.filter, ""), {}).get(state.asset_id)
        shares = judged.data["coverage"] if judged is not None else None
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
        """One of them, on which a stage failed."""
        state, failure = self._objects.state(row), self._decisions.at(row).failure
        assert failure is not None
        return FailedObject(
            asset_id=state.asset_id,
            name=state.record.name,
            stage=failure.stage.name,
            message=failure.message,
            log_tail=str(self._events[failure.stage.name][state.asset_id].data.get("log_tail", "")),
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


def _licences(standing: Standing) -> list[LicenceCount]:
    column = standing.objects.table[LIST.licence.key].fill_null("")
    listed = _counts(column)
    kept = _counts(column.filter(pa.array(standing.decisions.where("kept"))))
    most = [name for name, _ in listed.most_common(_MOST_LICENCES)]
    counts = [
        LicenceCount(name=name or "none stated", listed=listed.pop(name), kept=kept.pop(name, 0))
        for name in most
    ]
    if listed:
        counts.append(LicenceCount(name="others", listed=listed.total(), kept=kept.total()))
    return counts


def _counts(column: pa.ChunkedArray) -> Counter[str]:
    return Counter({i["values"]: i["counts"] for i in pc.value_counts(column).to_pylist()})


def _rank(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
