"""DeepSpeed's configuration, derived from that of the run."""

from collections.abc import Mapping
from typing import Any

from core.config import merge
from core.errors import BadInput
from train.settings.train_config import TrainConfig

__all__ = ["check_deepspeed", "deepspeed_settings"]

_OPTION_OF_KEY = {
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
    "checkpoint": "",
    "zero_optimization.stage": "--zero-stage",
    "zero_optimization.offload_optimizer": "--offload-optimizer",
}
"""DeepSpeed's keys that an option of the run sets; empty: the run sets the key itself.

A second value in --deepspeed could contradict the option without an error."""
_BUCKET_SIZE = 50_000_000
"""Number of elements that are reduced at once. DeepSpeed's default of 5e8 allocates gigabytes per
GPU for any size of the model."""

_BUCKET_FACTOR = 2
"""DeepSpeed requires that `allgather_bucket_size` is a multiple of this number."""


def deepspeed_settings(config: TrainConfig, *, num_parameters: int, on_gpu: bool) -> dict[str, Any]:
    """Return the configuration for `deepspeed.initialize`.

    The settings in `config.deepspeed` override those of this function.
    """
    bucket = max(1, min(_BUCKET_SIZE, num_parameters))
    bucket += bucket % _BUCKET_FACTOR
    zero: dict[str, Any] = {
        "stage": config.zero_stage,
        "overlap_comm": on_gpu,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
    }
    if config.zero_stage == 3:
        # A resumed run must gather the same weights as an uninterrupted one.
        zero |= {"stage3_gather_16bit_weights_on_model_save": True}
        del zero["allgather_bucket_size"]
    if config.offload_optimizer:
        zero |= {"offload_optimizer": {"device": "cpu", "pin_memory": on_gpu}}
    settings = {
        "train_batch_size": config.batch_size,
        "train_micro_batch_size_per_gpu": config.micro_batch_size,
        "zero_optimization": zero,
        "gradient_clipping": config.optimizer.gradient_clip,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": config.precision == "bf16"},
        "steps_per_print": 2**31,
    }
    return merge(settings, config.deepspeed)


def check_deepspeed(given: Mapping[str, Any]) -> None:
    """Raise BadInput if `--deepspeed` sets a key that an option of the run sets."""
    for key, option in _OPTION_OF_KEY.items():
        value: Any = given
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            continue
        remedy = f"use the option {option}" if option else "the run sets it, leave it out"
        raise BadInput(f"--deepspeed: {key} cannot be set there; {remedy}")
