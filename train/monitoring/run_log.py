"""Log files and preview images of a run, and the loggers that get the same values."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from PIL import Image

from core.atomic import atomic_file
from train.monitoring.loggers.background_logger import BackgroundLogger
from train.monitoring.metrics_log import METRICS, REPLACED, SKIPPED, VALIDATION, MetricsLog

if TYPE_CHECKING:
    from train.resilience.damaged_samples import Replacement

__all__ = ["RunLog"]

_log = logging.getLogger(__name__)

_MAX_CAUSE_LENGTH = 160
"""Maximum number of characters of a cause in the log of replaced samples."""


class RunLog:
    """Writer of the logs and previews in a run's folder; only rank 0 has one.

    Lines of steps after `first_step`, where the run resumes, are removed first.
    """

    def __init__(
        self, out: Path, first_step: int, loggers: Sequence[BackgroundLogger] = ()
    ) -> None:
        self._out, self._loggers = out, loggers
        self._metrics = MetricsLog(out, first_step, METRICS)
        self._validation = MetricsLog(out, first_step, VALIDATION)
        self._skipped = MetricsLog(out, first_step, SKIPPED)
        self._replaced = MetricsLog(out, first_step, REPLACED)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self._metrics.close()
        self._validation.close()
        self._skipped.close()
        self._replaced.close()
        # After an interrupt, no logger may delay the end.
        wait = error is None or isinstance(error, Exception)
        for logger in self._loggers:
            logger.close(failed=error is not None, wait=wait)

    def step(self, step: int, values: Mapping[str, Any]) -> None:
        """Log the metrics of one optimizer step."""
        self._metrics.write(step=step, **values)
        self._curves("train", step, values)

    def skipped(self, step: int, problem: str, samples: Sequence[str]) -> None:
        """Log a skipped step and the samples of its batch."""
        self._skipped.write(step=step, problem=problem, samples=list(samples))

    def replaced(self, step: int, replacement: "Replacement") -> None:
        """Log a replacement, with one line per damaged sample."""
        for fault in replacement.faults:
            values = asdict(fault) | {"cause": fault.cause[:_MAX_CAUSE_LENGTH]}
            self._replaced.write(step=step, **values, replaced_by=replacement.replaced_by)

    def validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of one validation."""
        self._validation.write(step=step, **metrics)
        self._curves("validation", step, metrics)

    def preview(self, step: int, picture: Image.Image) -> None:
        """Write a preview image; on a full disk, log a warning instead."""
        try:
            path = self._out / "previews" / f"step-{step:08d}.png"
            with atomic_file(path, sync=False) as temporary:
                picture.save(temporary, "PNG")
        except OSError as error:
            _log.warning("step %d: cannot write the preview: %s", step, error)
        for logger in self._loggers:
            logger.picture(step, "preview", picture)

    def _curves(self, group: str, step: int, values: Mapping[str, Any]) -> None:
        numbers = {
            f"{group}/{name}": value
            for name, value in values.items()
            if isinstance(value, int | float)
        }
        for logger in self._loggers:
            logger.scalars(step, numbers)
