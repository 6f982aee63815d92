"""DeepSpeed's own configuration, made from ours."""

import json
from pathlib import Path
from typing import Any

from dataset.config import merge
from dataset.errors import BadInput
from train.config import TrainConfig

__all__ = ["deepspeed_settings", "read_deepspeed"]

_BUCKET = 50_000_000
"""Numbers in a bucket that is reduced at once. DeepSpeed's default of 5e8 allocates gigabytes per
GPU, whatever the size of the model."""


def deepspeed_settings(config: TrainConfig, *, num_parameters: int, on_gpu: bool) -> dict[str, Any]:
    """What `deepspeed.initialize` is given; the run's own `deepspeed` keys lie on top."""
    bucket = max(1, min(_BUCKET, num_parameters))
    zero: dict[str, Any] = {
        "stage": config.zero_stage,
        "overlap_comm": on_gpu,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
    }
    if config.zero_stage == 3:
        # A resumed run must gather what the undisturbed one does.
        zero |= {"stage3_gather_16bit_weights_on_model_save": True}
        del zero["allgather_bucket_size"]
    if config.offload_optimizer:
        zero |= {"offload_optimizer": {"device": "cpu", "pin_memory": on_gpu}}
    settings = {
        "train_batch_size": config.batch_size,
        "train_micro_batch_size_per_gpu": config.micro,
        "zero_optimization": zero,
        "gradient_clipping": config.optimizer.gradient_clip,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": config.precision == "bf16"},
        "steps_per_print": 2**31,
    }
    return merge(settings, read_deepspeed(config.deepspeed))


def read_deepspeed(given: dict[str, Any] | str) -> dict[str, Any]:
    """The keys of `--deepspeed`: given as such, or a JSON file's. Raises BadInput."""
    if isinstance(given, dict):
        return given
    try:
        found = json.loads(Path(given).read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"--deepspeed {given}: is no JSON file that can be read: {error}") from None
    if not isinstance(found, dict):
        raise BadInput(f"--deepspeed {given}: holds no object of settings")
    return found
