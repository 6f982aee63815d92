"""An HTTP endpoint from which Prometheus reads the metrics of a running command."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from core.errors import BadInput

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

__all__ = ["Metric", "serve_metrics"]

_ADDRESS = "0.0.0.0"  # noqa: S104 - Prometheus runs on another machine
"""The endpoint listens on all network interfaces."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One value at the time of the request."""

    name: str
    """Name as Prometheus stores it; that of a counter ends with `_total`."""
    help: str
    """One sentence; metrics of one name share it."""
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    """Metrics of one name have the same label names."""
    kind: Literal["gauge", "counter"] = "gauge"


@contextlib.contextmanager
def serve_metrics(port: int | None, collect: Callable[[], Iterable[Metric]]) -> Iterator[None]:
    """Serve the metrics at `http://HOST:PORT/metrics` during a block; None serves nothing.

    Every request calls `collect` in a thread of the server. Raises BadInput if the port cannot be
    used.
    """
    if port is None:
        yield
        return
    # Only commands that serve metrics load the library.
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(_Collector(collect))
    try:
        server, thread = start_http_server(port, addr=_ADDRESS, registry=registry)
    except OSError as error:
        raise BadInput(
            f"--metrics-port {port}: cannot serve metrics: {error.strerror or error}; "
            "give another port"
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Collector:
    """Converts metrics into the families of prometheus_client."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def describe(self) -> "Iterable[Family]":
        """Return nothing: otherwise the registry collects the metrics once when it is set up."""
        return ()

    def collect(self) -> "Iterable[Family]":
        """Return one family per name, in the order in which the names first appear."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for metric in self._collect():
            if metric.name not in families:
                family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                families[metric.name] = family(metric.name, metric.help, labels=[*metric.labels])
            families[metric.name].add_metric([*metric.labels.values()], metric.value)
        return families.values()
