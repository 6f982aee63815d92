"""Weights & Biases, configured by its environment variables such as WANDB_PROJECT."""

from collections.abc import Mapping

from PIL import Image

from core.errors import BadInput
from train.monitoring.loggers.logger import LoggedStart

__all__ = ["WandbLogger"]


class WandbLogger:
    """A run in W&B, which a later start continues."""

    def __init__(self, start: LoggedStart) -> None:
        import wandb

        # Without an account, W&B would ask for one at the terminal.
        if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False):
            raise BadInput("no account: run `wandb login`, or set WANDB_API_KEY or WANDB_MODE")
        number = start.find_id("wandb")
        # W&B accepts no step twice; the repeated ones have the same values.
        self._skip_until = start.logged_step if number else 0
        settings = wandb.Settings(console="off", silent=True)
        self._run = wandb.init(
            dir=str(start.out),
            id=number,
            resume="allow",
            name=start.name,
            job_type=start.recipe,
            config=dict(start.config),
            settings=settings,
        )
        start.store_id("wandb", self._run.id)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log a point of each curve."""
        self._log(step, dict(values))

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """Log a picture."""
        import wandb

        self._log(step, {name: wandb.Image(picture)})

    def close(self, *, failed: bool) -> None:
        """Upload what is buffered, and mark the run as finished or failed."""
        self._run.finish(exit_code=int(failed))

    def _log(self, step: int, values: Mapping[str, object]) -> None:
        if step > self._skip_until:
            self._run.log(dict(values), step=step)
