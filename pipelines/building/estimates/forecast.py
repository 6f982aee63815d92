"""When a build will be done: arithmetic on what its objects went through so far."""

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from dataset.catalog.event_log import Event

__all__ = ["Forecast", "StageProgress"]

_ENDED = ""
"""Counted beside the stages: objects that have none left."""
_WORK = "seconds"
"""Counted likewise: time of workers."""


@dataclass(frozen=True, kw_only=True)
class StageProgress:
    """Where a stage stands."""

    stage: str
    waiting: int
    done: int
    failed: int
    per_minute: float
    """Done or failed, lately."""
    mean_seconds: float | None
    """Of one worker for one object; None before the first."""


class Forecast:
    """Follows objects from stage to stage, and expects of those to come what it saw of the others.

    The rest is reckoned in time of workers, not in objects: of every waiting object, which stages
    it will still pass (by the shares that passed so far), and what each takes. Divided by the work
    that the workers got done lately, this is the time to go. So a thousand objects that a filter
    drops at once promise nothing for those that are rendered. Times are seconds of one clock.
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

    def wait(self, stage: str, num_objects: int) -> None:
        """Some more objects wait for a stage."""
        self._waiting[stage] += num_objects

    def settle(self, waited: str, events: Sequence[Event], then: str | None, now: float) -> None:
        """An object that waited for a stage went through it, and perhaps further.

        It waits for the stage `then`, or is done (None).
        """
        if not events:
            return
        path = [waited, *(event.stage for event in events[1:])]
        second = self._second(now)
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
        """The stages that any object came to, in their order."""
        return [
            StageProgress(
                stage=stage,
                waiting=self._waiting[stage],
                done=self._done[stage],
                failed=self._failed[stage],
                per_minute=60 * self._rate(stage, now),
                mean_seconds=self._mean(stage),
            )
            for stage in self._stages
            if self._waiting[stage] or self._ended(stage)
        ]

    def objects_per_minute(self, now: float) -> float:
        """Objects that were done with, lately."""
        return 60 * self._rate(_ENDED, now)

    def seconds_left(self, now: float) -> float | None:
        """Until all objects are done; None while a stage that they come to was never seen.

        The last stage may be unknown: it packs what many objects have become, late and fast.
        """
        work = 0.0
        expected: dict[str, float] = {}
        for stage in self._stages:
            shares = ((self._passed[before, stage], before) for before in expected)
            coming = sum(n * expected[before] / self._ended(before) for n, before in shares if n)
            expected[stage] = self._waiting[stage] + coming
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

    def _second(self, now: float) -> defaultdict[str, float]:
        """What is counted of the present second; what is too old is forgotten."""
        if not self._recent or self._recent[-1][0] != int(now):
            self._recent.append((int(now), defaultdict(float)))
        while self._recent[0][0] < now - self._window:
            self._recent.popleft()
        return self._recent[-1][1]

    def _rate(self, name: str, now: float) -> float:
        """Per second, within the window."""
        total = sum(
            counts.get(name, 0.0) for at, counts in self._recent if at >= now - self._window
        )
        return total / max(1.0, min(self._window, now - self._started))
