"""The forecast of a build's remaining time, from the objects that it has processed so far."""

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from dataset.catalog.event_log import Event

__all__ = ["Forecast", "StageProgress"]

_ENDED = ""
"""Key of the objects without a further stage, counted like a stage."""
_WORK = "seconds"
"""Key of the workers' time in seconds, counted like a stage."""


@dataclass(frozen=True, kw_only=True)
class StageProgress:
    """The progress of one stage."""

    stage: str
    waiting: int
    done: int
    failed: int
    per_minute: float
    """Objects done or failed per minute, within the window of the forecast."""
    seconds: float
    """Time of the workers for all objects done or failed."""

    @property
    def mean_seconds(self) -> float | None:
        """Mean time of one worker for one object; None before the first."""
        num_ended = self.done + self.failed
        return self.seconds / num_ended if num_ended else None


class Forecast:
    """Estimates the remaining time from the objects that already passed each stage.

    The remaining work is measured in worker seconds, not in objects:

        work = sum over stages s of n_s * t_s,   n_s = waiting_s + sum over p of n_p * share_ps

    where n_s is the number of objects that will reach s, t_s the mean seconds of s, and share_ps
    the share of the objects at stage p that went on to s. The remaining time is this work divided
    by the worker seconds done per second within the window. A thousand objects that a filter drops
    at once therefore do not shorten the estimate for those that are rendered. All times are in
    seconds of one monotonic clock.
    """

    def __init__(self, stages: Sequence[str], started: float, window: float = 600.0) -> None:
        self._stages = stages
        self._started = started
        self._window = window
        self._waiting: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._passed: Counter[tuple[str, str]] = Counter()
        self._recent: deque[tuple[int, defaultdict[str, float]]] = deque()

    def add_waiting(self, stage: str, num_objects: int) -> None:
        """Add objects that wait for a stage."""
        self._waiting[stage] += num_objects

    def record(self, waited: str, events: Sequence[Event], then: str | None, now: float) -> None:
        """Record the events of an object that waited for the stage `waited`.

        The first event is that stage's outcome, the others are those of further stages. The object
        now waits for the stage `then`; None if it is done.
        """
        if not events:
            return
        path = [waited, *(event.stage for event in events[1:])]
        second = self._counts_of_second(now)
        for stage, event in zip(path, events, strict=True):
            (self._done if event.status == "ok" else self._failed)[stage] += 1
            self._seconds[stage] += event.seconds
            second[stage] += 1
            second[_WORK] += event.seconds
        self._passed.update(zip(path, [*path[1:], then or _ENDED], strict=True))
        second[_ENDED] += then is None
        self._waiting[waited] -= 1
        if then is not None:
            self._waiting[then] += 1

    def rows(self, now: float) -> list[StageProgress]:
        """Return the progress of all stages that an object has reached, in their order."""
        return [
            StageProgress(
                stage=stage,
                waiting=self._waiting[stage],
                done=self._done[stage],
                failed=self._failed[stage],
                per_minute=60 * self._rate(stage, now),
                seconds=self._seconds[stage],
            )
            for stage in self._stages
            if self._waiting[stage] or self._ended(stage)
        ]

    def objects_per_minute(self, now: float) -> float:
        """Return how many objects per minute reached their final state, within the window."""
        return 60 * self._rate(_ENDED, now)

    def busy_workers(self, now: float) -> float:
        """Return the worker seconds done per second, within the window."""
        return self._rate(_WORK, now)

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds until all objects are done.

        None while no object has passed a stage that others will reach. The last stage is exempt:
        it packs many objects at once, late and fast.
        """
        work = 0.0
        expected: dict[str, float] = {}
        for stage in self._stages:
            passed = ((self._passed[before, stage], before) for before in expected)
            arriving = sum(n * expected[before] / self._ended(before) for n, before in passed if n)
            expected[stage] = self._waiting[stage] + arriving
            mean = self._mean(stage)
            if mean is not None:
                work += expected[stage] * mean
            elif expected[stage] and stage != self._stages[-1]:
                return None
        speed = self._rate(_WORK, now)
        if not any(expected.values()):
            return 0.0
        return work / speed if speed else None

    def _ended(self, stage: str) -> int:
        return self._done[stage] + self._failed[stage]

    def _mean(self, stage: str) -> float | None:
        ended = self._ended(stage)
        return self._seconds[stage] / ended if ended else None

    def _counts_of_second(self, now: float) -> defaultdict[str, float]:
        """Return the counts of the present second, and remove those older than the window."""
        if not self._recent or self._recent[-1][0] != int(now):
            self._recent.append((int(now), defaultdict(float)))
        while self._recent[0][0] < now - self._window:
            self._recent.popleft()
        return self._recent[-1][1]

    def _rate(self, name: str, now: float) -> float:
        """Return a count per second, within the window."""
        total = sum(
            counts.get(name, 0.0) for at, counts in self._recent if at >= now - self._window
        )
        return total / max(1.0, min(self._window, now - self._started))
