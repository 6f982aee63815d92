"""Collects the outcomes of a build and commits them to the catalog."""

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
_EVENTS_PER_RENEWAL = 50_000
"""Events in the tail of the log above which reading it becomes slow."""


def _always() -> None:
    """The check of a writer without a lock."""


class Committer:
    """Appends events to the catalog in batches."""

    def __init__(
        self, catalog: Catalog, latest: Latest, limits: ExecutionConfig, still_ours: Check = _always
    ) -> None:
        """`still_ours` is called before every commit: it raises if the lock was lost."""
        self._catalog = catalog
        self._latest = latest
        self._limits = limits
        self._run = uuid.uuid4().hex
        self._batch = 0
        self._events: list[Event] = []
        self._since = time.monotonic()
        self._not_renewed = 0
        self._still_ours = still_ours

    def add(self, events: Iterable[Event]) -> None:
        """Add events to the next commit."""
        self._events.extend(events)

    def add_all(self, events: Iterable[Event]) -> None:
        """Commit a long list of events without holding all of it."""
        listed = iter(events)
        while block := list(islice(listed, _LISTED_PER_COMMIT)):
            self._commit(block)

    def tick(self) -> bool:
        """Commit if enough events or time have passed. Returns whether all events are committed."""
        waited = time.monotonic() - self._since
        enough = len(self._events) >= self._limits.commit_events
        if enough or waited >= self._limits.commit_seconds:
            self.flush()
        return not self._events

    def flush(self) -> None:
        """Commit everything now."""
        for start in range(0, len(self._events), self._limits.commit_events):
            self._commit(self._events[start : start + self._limits.commit_events])
        self._events = []
        self._since = time.monotonic()
        if self._not_renewed >= _EVENTS_PER_RENEWAL:
            self._renew()

    def close(self) -> None:
        """Commit everything, and renew the files that make the catalog fast to read."""
        self.flush()
        if self._not_renewed:
            self._renew()

    def _commit(self, events: Sequence[Event]) -> None:
        self._batch += 1
        self._catalog.commit(events, self._run, self._batch, self._still_ours)
        self._not_renewed += len(events)

    def _renew(self) -> None:
        self._still_ours()
        self._catalog.compact()
        self._latest.renew()
        self._not_renewed = 0
