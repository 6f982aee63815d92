"""DeepSpeed's own configuration, made from ours."""

from collections.abc import Mapping
from typing import Any

from core.config import merge
from core.errors import BadInput
from train.settings.train_config import TrainConfig

__all__ = ["check_deepspeed", "deepspeed_settings"]

_OWNED = {
    "train_batch_size": "--batch-size",
    "train_micro_batch_size_per_gpu": "--micro-batch",
    "gradient_accumulation_steps": "--micro-batch",
    "gradient_clipping": "--optimizer.gradient-clip",
    "optimizer": "--optimizer.*",
    "scheduler": "--optimizer.*",
    "bf16": "--precision",
    "fp16": "--precision",
    "amp": "--precision",
    "activation_checkpointing": "--activation-checkpointing",
    "checkpoint": "nothing: the run keeps its own checkpoints",
    "zero_optimization.stage": "--zero-stage",
    "zero_optimization.offload_optimizer": "--offload-optimizer",
}
"""DeepSpeed's keys for what an option of the run says: two answers would part silently."""
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
    return merge(settings, config.deepspeed)


def check_deepspeed(given: Mapping[str, Any]) -> None:
    """Raise BadInput if `--deepspeed` says what an option of the run says."""
    for key, option in _OWNED.items():
        found: Any = given
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if found is not None:
            raise BadInput(f"--deepspeed: {key} is not for it to say: leave it out, use {option}")
