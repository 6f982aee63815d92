"""DeepSpeed's engine around the trained module, with an optimizer whose steps can be called off."""

import logging
import sys
import warnings
from typing import Any, NamedTuple

from torch import nn

from train.resilience.step_guard import VetoedAdamW
from train.settings.accelerator import choose_accelerator
from train.settings.deepspeed_settings import deepspeed_settings
from train.settings.train_config import OptimizerConfig, TrainConfig

__all__ = ["Wrapped", "wrap"]


class Wrapped(NamedTuple):
    """A module as DeepSpeed trains it."""

    engine: Any
    optimizer: VetoedAdamW
    """Ours, which makes the update."""
    scheduled: Any
    """DeepSpeed's optimizer around ours; the learning rate is set in its parameter groups."""


def wrap(module: nn.Module, config: TrainConfig, *, universal: bool) -> Wrapped:
    """Wrap a module in DeepSpeed's engine; all ranks call it.

    `universal` if a checkpoint of another number of ranks will be loaded.
    """
    on_gpu = choose_accelerator()
    import deepspeed
    import deepspeed.ops

    _quiet()
    if not on_gpu:
        # Its shared-memory operator would be compiled for a minute at the first start.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    optimizer = VetoedAdamW(
        _parameter_groups(module, config.optimizer),
        lr=config.optimizer.learning_rate,
        betas=(config.optimizer.beta1, config.optimizer.beta2),
    )
    optimizer.check_gradients = config.zero_stage == 0
    count = sum(p.numel() for p in module.parameters() if p.requires_grad)
    settings = deepspeed_settings(config, num_parameters=count, on_gpu=on_gpu)
    if universal:
        settings["checkpoint"] = {"load_universal": True}
    engine, scheduled, _, _ = deepspeed.initialize(
        model=module, optimizer=optimizer, config=settings
    )
    return Wrapped(engine, optimizer, scheduled)


def _quiet() -> None:
    """Send DeepSpeed's log to standard error, and silence its own use of deprecated functions."""
    from deepspeed.utils import logger

    for handler in logger.handlers:
        # Its own: standard output is for the run's result.
        if type(handler) is logging.StreamHandler:
            handler.setStream(sys.stderr)
    deprecated = ".*is deprecated. Please use `torch.distributed"
    warnings.filterwarnings("ignore", deprecated, category=FutureWarning)


def _parameter_groups(module: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Return the trained parameters; vectors and scalars have no weight decay."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
