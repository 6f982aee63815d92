"""The metrics of a run for Prometheus, read from the files in its folder."""

from collections.abc import Iterator
from pathlib import Path

from core.monitoring.endpoint import Metric
from train.monitoring.metrics_log import REPLACED, SKIPPED, last_metrics, read_metrics

__all__ = ["collect_run_metrics"]

_GAUGES = {
    "step": ("lrm_train_step", "Number of optimizer steps done."),
    "loss": ("lrm_train_loss", "Loss of the last step, mean over the global batch."),
    "samples_per_second": ("lrm_train_samples_per_second", "Samples per second of all workers."),
    "seconds": ("lrm_train_step_seconds", "Duration of the last step in seconds."),
    "goodput": (
        "lrm_train_goodput_ratio",
        "Share of the time since the first start that was spent in steps that count.",
    ),
    "time": ("lrm_train_last_step_timestamp_seconds", "End of the last step, seconds since 1970."),
}
"""For each key of metrics.jsonl, the metric's name and description."""


def collect_run_metrics(out: Path, steps: int, *, restarts: int) -> Iterator[Metric]:
    """Yield the metrics of the run in `out`.

    `steps` is the length of the run, `restarts` the number of times that this command has started
    its workers again.
    """
    last = last_metrics(out) or {"step": 0}
    for key, (name, description) in _GAUGES.items():
        if last.get(key) is not None:
            yield Metric(name=name, help=description, value=float(last[key]))
    yield Metric(name="lrm_train_steps", help="Number of steps of the whole run.", value=steps)
    counts = {
        "lrm_train_skipped_steps": ("Skipped steps of the run.", len(read_metrics(out, SKIPPED))),
        "lrm_train_replaced_samples": (
            "Damaged samples of the run that were replaced.",
            len(read_metrics(out, REPLACED)),
        ),
    }
    for name, (description, count) in counts.items():
        yield Metric(name=name, help=description, value=count)
    yield Metric(
        name="lrm_train_restarts_total",
        help="Restarts of the workers by this command.",
        value=restarts,
        kind="counter",
    )
