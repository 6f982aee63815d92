"""The committer: collects the events of a build and commits them to the catalog in batches."""

import time
import uuid
from collections.abc import Iterable, Sequence
from itertools import islice

from core.lock import Check
from dataset.catalog.event_log import Catalog, Event
from dataset.catalog.latest import Latest
from pipelines.building.build_config import ExecutionConfig

__all__ = ["Committer"]

_LISTED_PER_COMMIT = 20_000
"""Events of the listing in one commit."""
_EVENTS_PER_RENEWAL = 50_000
"""New events after which the files of newest events are rewritten; a longer log is slow to read."""


def _no_lock() -> None:
    """Do nothing: the lock check of a writer that needs no lock."""


class Committer:
    """Appends events to the catalog in batches."""

    def __init__(
        self,
        catalog: Catalog,
        latest: Latest,
        limits: ExecutionConfig,
        still_ours: Check = _no_lock,
    ) -> None:
        """`still_ours` is called before every commit; it raises WorkFailed if the lock was lost."""
        self._catalog = catalog
        self._latest = latest
        self._limits = limits
        self._run = uuid.uuid4().hex
        self._batch = 0
        self._events: list[Event] = []
        self._last_flush = time.monotonic()
        self._events_since_renewal = 0
        self._still_ours = still_ours

    def add(self, events: Iterable[Event]) -> None:
        """Add events to the next commit."""
        self._events.extend(events)

    def add_all(self, events: Iterable[Event]) -> None:
        """Commit a long stream of events block by block, so that it never is in memory whole."""
        remaining = iter(events)
        while block := list(islice(remaining, _LISTED_PER_COMMIT)):
            self._commit(block)

    def tick(self) -> bool:
        """Commit if the limit of events or of time is reached. Return True if none is left."""
        elapsed = time.monotonic() - self._last_flush
        is_full = len(self._events) >= self._limits.commit_events
        if is_full or elapsed >= self._limits.commit_seconds:
            self.flush()
        return not self._events

    def flush(self) -> None:
        """Commit all collected events now."""
        for start in range(0, len(self._events), self._limits.commit_events):
            self._commit(self._events[start : start + self._limits.commit_events])
        self._events = []
        self._last_flush = time.monotonic()
        if self._events_since_renewal >= _EVENTS_PER_RENEWAL:
            self._renew()

    def close(self) -> None:
        """Commit all collected events and rewrite the files that make the catalog fast to read."""
        self.flush()
        if self._events_since_renewal:
            self._renew()

    def _commit(self, events: Sequence[Event]) -> None:
        self._batch += 1
        self._catalog.commit(events, self._run, self._batch, self._still_ours)
        self._events_since_renewal += len(events)

    def _renew(self) -> None:
        self._still_ours()
        self._catalog.compact()
        self._latest.renew()
        self._events_since_renewal = 0
