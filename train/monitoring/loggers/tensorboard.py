"""TensorBoard: event files below the run's folder."""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from train.monitoring.loggers.logger import LoggedStart

__all__ = ["TensorBoardLogger"]


class TensorBoardLogger:
    """Writer of TensorBoard's event files."""

    def __init__(self, start: LoggedStart) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # TensorBoard ignores the data of earlier files from this step on.
        folder = str(start.out / "tensorboard")
        self._writer = SummaryWriter(folder, purge_step=start.first_step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write a point of each curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """Write a picture."""
        pixels = np.asarray(picture.convert("RGB"))
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self, *, failed: bool) -> None:
        """Write what is buffered."""
        self._writer.close()
