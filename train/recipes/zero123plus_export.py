"""A run's UNet in the folder of a whole Zero123++ pipeline, as diffusers lays it out."""

from pathlib import Path

from torch import Tensor

from core.atomic import atomic_folder
from core.errors import BadInput
from dataset.zero123plus_cameras import TARGET_DISTANCE
from train.checkpoints.checkpoint import Checkpoint
from train.inference.views_file import write_distance
from train.models.ema import ema_state
from train.recipes.zero123plus_config import AVERAGE_KEYS, UNET_KEYS, Zero123PlusTrainConfig
from train.recipes.zero123plus_start import open_pipeline

__all__ = ["write_pipeline"]


def write_pipeline(
    checkpoint: Checkpoint, weights: dict[str, Tensor], out: Path, *, ema: bool = False
) -> int:
    """Write the pipeline that the run started from, with the run's UNet; the UNet's tensors.

    In float32. `ema` takes the moving average. The folder appears when it is whole. Raises BadInput
    if it is there already, or the run keeps no average, or its pipeline is gone.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"--out {out}: is there already; give a new folder")
    config = Zero123PlusTrainConfig.load(checkpoint.manifest.config, where=checkpoint.where)
    if ema and not config.ema:
        raise BadInput(f"{checkpoint.where}: the run keeps no moving average (--ema 0)")
    pipeline = open_pipeline(config.source, config.seed)
    unet = _under(UNET_KEYS, weights)
    if ema:
        unet = ema_state(_under(AVERAGE_KEYS, weights), unet, config.ema)
    pipeline.unet.load_state_dict({name: value.float() for name, value in unet.items()})
    with atomic_folder(out) as temporary:
        pipeline.save_pretrained(temporary)
        # Sheets are of this rig alone (train/data/zero123plus_sheets.py).
        write_distance(temporary, TARGET_DISTANCE)
    return len(unet)


def _under(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
