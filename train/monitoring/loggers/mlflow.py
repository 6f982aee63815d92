"""MLflow, at the server that MLFLOW_TRACKING_URI names, else in a database in the run's folder."""

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image

from train.monitoring.loggers.logger import LoggedStart

__all__ = ["MlflowLogger"]

_EXPERIMENT = "lrm"
"""Name of the experiment without MLFLOW_EXPERIMENT_NAME."""
_MAX_PARAMS = 100
"""Parameters that MLflow accepts in one call."""
_MAX_VALUE_LENGTH = 500
"""Characters of a parameter's value that every MLflow server accepts."""


class MlflowLogger:
    """A run in MLflow, which a later start continues."""

    def __init__(self, start: LoggedStart) -> None:
        from mlflow import MlflowClient

        folder = start.out / "mlflow"
        uri, artifacts = os.environ.get("MLFLOW_TRACKING_URI"), None
        if uri is None:
            folder.mkdir(exist_ok=True)
            uri, artifacts = f"sqlite:///{folder}/mlflow.db", (folder / "artifacts").as_uri()
        self._client = MlflowClient(tracking_uri=uri)
        number = start.find_id("mlflow")
        # MLflow would show a repeated step twice; it has the same values.
        self._skip_until = start.logged_step if number else 0
        self._number = number or self._new_run(start, artifacts)
        self._client.update_run(self._number, status="RUNNING")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log a point of each curve."""
        from mlflow.entities import Metric

        if step <= self._skip_until:
            return
        now = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self._number, metrics=metrics)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """Log a picture."""
        if step > self._skip_until:
            self._client.log_image(self._number, picture, key=name, step=step)

    def close(self, *, failed: bool) -> None:
        """Mark the run as finished or failed."""
        self._client.set_terminated(self._number, "FAILED" if failed else "FINISHED")

    def _new_run(self, start: LoggedStart, artifacts: str | None) -> str:
        """Create a run with the settings as its parameters; return its id."""
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        experiment = (
            found.experiment_id
            if found
            else self._client.create_experiment(name, artifact_location=artifacts)
        )
        number = str(self._client.create_run(experiment, run_name=start.name).info.run_id)
        start.store_id("mlflow", number)
        settings = {"recipe": start.recipe, **dict(_flat(start.config))}
        params = [Param(key, str(value)[:_MAX_VALUE_LENGTH]) for key, value in settings.items()]
        for first in range(0, len(params), _MAX_PARAMS):
            self._client.log_batch(number, params=params[first : first + _MAX_PARAMS])
        return number


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
