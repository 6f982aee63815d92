"""The committer: collects the events of a build and commits them to the catalog in batches."""

import time
import uuid
from collections.abc import Iterable, Sequence
from itertools import islice

from core.lock import LockCheck
from dataset.catalog.event_log import Catalog, Event
from dataset.catalog.latest import LatestEvents
from pipelines.building.build_config import ExecutionConfig

__all__ = ["Committer"]

_LISTED_PER_COMMIT = 20_000
"""Events of the listing in one commit."""
_EVENTS_PER_BASE_UPDATE = 50_000
"""New events after which the base files of latest/ are rewritten: a long log is slow to read."""


def _no_lock() -> None:
    """Do nothing: the lock check of a writer that needs no lock."""


class Committer:
    """Appends events to the catalog in batches."""

    def __init__(
        self,
        catalog: Catalog,
        latest: LatestEvents,
        limits: ExecutionConfig,
        check_lock: LockCheck = _no_lock,
    ) -> None:
        """`check_lock` is called before every commit; it raises WorkFailed if the lock was lost."""
        self._catalog = catalog
        self._latest = latest
        self._limits = limits
        self.run = uuid.uuid4().hex
        """The id that the catalog stores with every event of this writer."""
        self._batch = 0
        self._events: list[Event] = []
        self._last_flush = time.monotonic()
        self._events_since_update = 0
        self._check_lock = check_lock

    def add(self, events: Iterable[Event]) -> None:
        """Add events to the next commit."""
        self._events.extend(events)

    def add_all(self, events: Iterable[Event]) -> None:
        """Commit a long stream of events in blocks, so that it is never in memory as a whole."""
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
        if self._events_since_update >= _EVENTS_PER_BASE_UPDATE:
            self._update_base()

    def close(self) -> None:
        """Commit all collected events and rewrite the files that make the catalog fast to read."""
        self.flush()
        if self._events_since_update or self._latest.needs_update:
            self._update_base()

    def _commit(self, events: Sequence[Event]) -> None:
        self._batch += 1
        self._catalog.commit(events, self.run, self._batch, self._check_lock)
        self._events_since_update += len(events)

    def _update_base(self) -> None:
        self._check_lock()
        self._catalog.compact()
        self._latest.update_base()
        self._events_since_update = 0
