"""The learning-rate schedule."""

import math

from train.settings.train_config import OptimizerConfig

__all__ = ["learning_rate"]


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Return the learning rate of a step, counted from 0.

    Linear warm-up, then half a cosine to the final rate. `steps` is the length of the run, used if
    `schedule_steps` is not set.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    length = max(1, (config.schedule_steps or steps) - config.warmup_steps)
    progress = min(1.0, (step - config.warmup_steps) / length)
    span = config.learning_rate - config.final_learning_rate
    return config.final_learning_rate + span * 0.5 * (1 + math.cos(math.pi * progress))
