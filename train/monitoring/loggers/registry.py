"""All loggers by name: a new one is entered here."""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from core.choices import choose
from core.errors import BadInput
from train.monitoring.loggers.background_logger import BackgroundLogger
from train.monitoring.loggers.logger import LoggedStart, Logger
from train.monitoring.metrics_log import last_metrics
from train.settings.train_config import TrainConfig

__all__ = ["LOGGERS", "LoggerKind", "check_loggers", "open_loggers"]


@dataclass(frozen=True, kw_only=True)
class LoggerKind:
    """A logger by name: the package that it needs, and where its class is defined."""

    package: str
    path: str
    """Module and name of its class, made from a `LoggedStart`, as `package.module:Name`."""

    def open(self, start: LoggedStart) -> Logger:
        """Return the logger of a start; imports its module and its package."""
        module, _, name = self.path.partition(":")
        logger: Logger = getattr(importlib.import_module(module), name)(start)
        return logger


LOGGERS: Mapping[str, LoggerKind] = {
    "tensorboard": LoggerKind(
        package="tensorboard",
        path="train.monitoring.loggers.tensorboard:TensorBoardLogger",
    ),
    "wandb": LoggerKind(package="wandb", path="train.monitoring.loggers.wandb:WandbLogger"),
    "mlflow": LoggerKind(package="mlflow", path="train.monitoring.loggers.mlflow:MlflowLogger"),
}


def check_loggers(names: Sequence[str]) -> None:
    """Raise BadInput if a logger is unknown, or its package is missing."""
    for name in names:
        package = choose("--loggers: logger", name, LOGGERS).package
        if importlib.util.find_spec(package) is None:
            raise BadInput(
                f"--loggers: the package {package} is not installed: pip install {package}, or "
                f"leave {name} out of --loggers"
            )


def open_loggers(config: TrainConfig, first_step: int) -> list[BackgroundLogger]:
    """Open the loggers of a start after `first_step`, before its log files are truncated."""
    out = Path(config.out)
    last = last_metrics(out)
    start = LoggedStart(
        out=out,
        first_step=first_step,
        logged_step=last["step"] if last else 0,
        recipe=config.recipe,
        config=config.dump(),
    )
    return [BackgroundLogger(name, partial(LOGGERS[name].open, start)) for name in config.loggers]
