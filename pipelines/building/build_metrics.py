"""The metrics of a build for Prometheus: what its progress lines show, as numbers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from core.monitoring.endpoint import Metric
from pipelines.building.estimates.forecast import Forecast

__all__ = ["BuildCounts", "build_metrics"]


@dataclass(frozen=True, kw_only=True)
class BuildCounts:
    """The state of a running build, beside the forecast."""

    total: int
    """Number of objects that the build works on."""
    finals: Mapping[str, int] = field(default_factory=dict)
    """Number of objects per final state."""
    unpacked: int = 0
    """Number of rendered objects that wait until their shard is complete."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Number of failed objects per failure kind."""
    queues: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Number of tasks per queue that wait in the driver, and that are in flight."""

    @property
    def num_done(self) -> int:
        """The number of objects that have reached their final state."""
        return sum(self.finals.values())


def build_metrics(counts: BuildCounts, forecast: Forecast, now: float) -> Sequence[Metric]:
    """Return the metrics of a build at a time of the forecast's clock."""
    return (*_objects(counts), *_stages(forecast, now), *_pace(forecast, now))


def _objects(counts: BuildCounts) -> Iterator[Metric]:
    pending = {"pending": counts.total - counts.num_done}
    yield from _gauges(
        "lrm_objects", "Objects that the build works on.", "state", {**counts.finals, **pending}
    )
    for kind, number in counts.failures.items():
        yield Metric(
            name="lrm_failures_total",
            help="Objects that failed in this build.",
            value=number,
            labels={"kind": kind},
            kind="counter",
        )
    places = ("waiting", "in_flight")
    for queue, lengths in counts.queues.items():
        for place, length in zip(places, lengths, strict=True):
            yield Metric(
                name="lrm_queue_length",
                help="Tasks of a queue that wait in the driver, or are in flight.",
                value=length,
                labels={"queue": queue, "place": place},
            )


def _stages(forecast: Forecast, now: float) -> Iterator[Metric]:
    for row in forecast.rows(now):
        numbers = {
            "done": ("Objects that passed a stage.", row.done),
            "failed": ("Objects that failed in a stage.", row.failed),
            "seconds": ("Time of the workers in a stage, in seconds.", row.seconds),
        }
        for word, (text, number) in numbers.items():
            yield Metric(
                name=f"lrm_stage_{word}_total",
                help=text,
                value=number,
                labels={"stage": row.stage},
                kind="counter",
            )


def _pace(forecast: Forecast, now: float) -> Iterator[Metric]:
    yield Metric(
        name="lrm_objects_per_second",
        help="Objects that reached their final state per second, in the last minutes.",
        value=forecast.objects_per_minute(now) / 60,
    )
    yield Metric(
        name="lrm_busy_workers",
        help="Seconds of work that the workers finished per second, in the last minutes.",
        value=forecast.busy_workers(now),
    )
    left = forecast.seconds_left(now)
    if left is not None:
        yield Metric(
            name="lrm_seconds_left", help="Expected time until the build ends.", value=left
        )


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Iterable[Metric]:
    for key, value in values.items():
        yield Metric(name=name, help=text, value=value, labels={label: key})
