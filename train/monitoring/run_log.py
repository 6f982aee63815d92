"""Log files and preview images of a run, and their curves in TensorBoard."""

import importlib.util
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image

from core.errors import BadInput
from core.storage import Storage
from train.monitoring.metrics_log import METRICS, REPLACED, SKIPPED, VALIDATION, MetricsLog
from train.settings.versions import installed_versions

if TYPE_CHECKING:
    from train.resilience.damaged_samples import Replacement

__all__ = ["RUN_FILE", "RunLog", "check_tensorboard"]

_log = logging.getLogger(__name__)

RUN_FILE = "run.json"
"""File with the configuration, hosts and versions of the last start of a run."""
_MAX_CAUSE_LENGTH = 160
"""Maximum number of characters of a cause in the log of replaced samples."""


def check_tensorboard() -> None:
    """Raise BadInput if the package tensorboard is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise BadInput(
            "--tensorboard: the package tensorboard is not installed; pip install tensorboard, "
            "or turn it off with --tensorboard false"
        )


class RunLog:
    """Writer of the logs and previews in a run's folder; only rank 0 has one.

    Lines of steps after `first_step`, where the run resumes, are removed first.
    """

    def __init__(self, out: Path, first_step: int, *, tensorboard: bool) -> None:
        self._out = out
        self._metrics = MetricsLog(out, first_step, METRICS)
        self._validation = MetricsLog(out, first_step, VALIDATION)
        self._skipped = MetricsLog(out, first_step, SKIPPED)
        self._replaced = MetricsLog(out, first_step, REPLACED)
        self._board: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            # TensorBoard ignores the data of earlier files from this step on.
            self._board = SummaryWriter(str(out / "tensorboard"), purge_step=first_step + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._metrics.close()
        self._validation.close()
        self._skipped.close()
        self._replaced.close()
        self._on_board(lambda board: board.close())

    def started(self, config: Mapping[str, Any], first_step: int, hosts: Sequence[str]) -> None:
        """Write the record of this start to run.json, for `lrm train --status`."""
        record = {
            "started": datetime.now(UTC).isoformat(),
            "first_step": first_step,
            "hosts": list(hosts),
            "versions": installed_versions(),
            "config": dict(config),
        }
        Storage(self._out).write(RUN_FILE, json.dumps(record, indent=1).encode())

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
            folder = self._out / "previews"
            folder.mkdir(parents=True, exist_ok=True)
            picture.save(folder / f"step-{step:08d}.png")
        except OSError as error:
            _log.warning("step %d: cannot write the preview: %s", step, error)
        pixels = np.asarray(picture.convert("RGB"))
        self._on_board(lambda board: board.add_image("preview", pixels, step, dataformats="HWC"))

    def _curves(self, group: str, step: int, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, int | float):
                self._on_board(partial(_add_scalar, f"{group}/{name}", value, step))

    def _on_board(self, write: Callable[[Any], None]) -> None:
        """Write to TensorBoard until the first error: its writer does not recover from one."""
        if self._board is None:
            return
        try:
            write(self._board)
        except OSError as error:
            _log.warning(
                "%s: cannot write for TensorBoard, its curves end here: %s", self._out, error
            )
            self._board = None


def _add_scalar(name: str, value: float, step: int, board: Any) -> None:
    board.add_scalar(name, value, step)
