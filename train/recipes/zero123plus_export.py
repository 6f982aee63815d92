"""Export of a run's UNet as a complete Zero123++ pipeline in diffusers' folder layout."""

from pathlib import Path

from torch import Tensor

from core.atomic import atomic_folder
from core.errors import BadInput
from dataset.zero123plus_cameras import TARGET_DISTANCE
from train.checkpoints.checkpoint import Checkpoint
from train.inference.views_file import write_distance
from train.models.ema import ema_state
from train.models.weight_files.writing import writing_weights
from train.models.zero123plus.quiet_libraries import quiet_diffusers
from train.recipes.zero123plus_config import AVERAGE_KEYS, UNET_KEYS, Zero123PlusTrainConfig
from train.recipes.zero123plus_start import open_pipeline

__all__ = ["write_pipeline"]


def write_pipeline(
    checkpoint: Checkpoint, weights: dict[str, Tensor], out: Path, *, ema: bool = False
) -> int:
    """Write the pipeline that the run started from, with the run's UNet in float32, atomically.

    Returns the number of tensors of the UNet. `ema` writes their moving average. Raises BadInput if
    the folder already exists, the run has no moving average, or its pipeline is missing.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"--out {out}: already exists; give a new folder")
    quiet_diffusers()
    config = Zero123PlusTrainConfig.load(checkpoint.manifest.config, where=checkpoint.uri)
    if ema and not config.ema:
        raise BadInput(
            f"{checkpoint.uri}: the run was trained without a moving average (--ema 0); export "
            "without --ema"
        )
    pipeline = open_pipeline(config.source, config.seed)
    unet = _under(UNET_KEYS, weights)
    if ema:
        unet = ema_state(_under(AVERAGE_KEYS, weights), unet, config.ema)
    pipeline.unet.load_state_dict({name: value.float() for name, value in unet.items()})
    with writing_weights(out), atomic_folder(out) as temporary:
        pipeline.save_pretrained(temporary)
        # All training samples are of one rig (train/data/zero123plus_sheets.py).
        write_distance(temporary, TARGET_DISTANCE)
    return len(unet)


def _under(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
