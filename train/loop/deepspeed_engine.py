"""DeepSpeed's engine around the trained module, with an optimizer that can skip an update."""

import logging
import sys
import warnings
from typing import Any, NamedTuple

from torch import nn

from train.resilience.step_guard import SkippableAdamW
from train.settings.accelerator import choose_accelerator
from train.settings.deepspeed_settings import deepspeed_settings
from train.settings.train_config import OptimizerConfig, TrainConfig

__all__ = ["Wrapped", "wrap"]


class Wrapped(NamedTuple):
    """A module in DeepSpeed's engine, and its two optimizer objects."""

    engine: Any
    optimizer: SkippableAdamW
    """The inner optimizer, which computes the update."""
    outer_optimizer: Any
    """DeepSpeed's optimizer around it; the learning rate is set in its parameter groups."""


def wrap(module: nn.Module, config: TrainConfig, *, universal: bool) -> Wrapped:
    """Wrap a module in DeepSpeed's engine; all ranks call it.

    `universal` prepares the engine for a checkpoint that was converted from another world size.
    """
    on_gpu = choose_accelerator()
    import deepspeed
    import deepspeed.ops

    _quiet()
    if not on_gpu:
        # Otherwise DeepSpeed compiles its shared-memory operator for a minute at the first start.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    optimizer = SkippableAdamW(
        _parameter_groups(module, config.optimizer),
        lr=config.optimizer.learning_rate,
        betas=(config.optimizer.beta1, config.optimizer.beta2),
    )
    optimizer.check_gradients = config.zero_stage == 0
    count = sum(p.numel() for p in module.parameters() if p.requires_grad)
    settings = deepspeed_settings(config, num_parameters=count, on_gpu=on_gpu)
    if universal:
        settings["checkpoint"] = {"load_universal": True}
    engine, outer_optimizer, _, _ = deepspeed.initialize(
        model=module, optimizer=optimizer, config=settings
    )
    return Wrapped(engine, optimizer, outer_optimizer)


def _quiet() -> None:
    """Send DeepSpeed's log to standard error, and silence warnings that a user cannot act on.

    Standard output is reserved for the result of the command. The warnings are those about
    DeepSpeed's own deprecated calls, and the one about an optimizer that DeepSpeed does not know.
    """
    from deepspeed.utils import logger

    for handler in logger.handlers:
        # DeepSpeed's own handler; subclasses (of pytest, for example) are left alone.
        if type(handler) is logging.StreamHandler:
            handler.setStream(sys.stderr)
    logger.addFilter(_is_useful)
    deprecated = ".*is deprecated. Please use `torch.distributed"
    warnings.filterwarnings("ignore", deprecated, category=FutureWarning)


def _is_useful(record: logging.LogRecord) -> bool:
    """Return whether to log a record of DeepSpeed.

    Its ZeRO check compares the exact type, so it calls `SkippableAdamW`, a subclass of AdamW,
    untested.
    """
    return "untested optimizer" not in record.getMessage()


def _parameter_groups(module: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Return the trained parameters in two groups; vectors and scalars have no weight decay."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
