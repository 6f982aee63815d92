"""Training runs of the recipe `zero123plus` in one process group."""

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist

from train.loop.engine import train
from train.recipes.registry import make_recipe


def train_zero123plus_runs(runs: Sequence[dict[str, Any]]) -> None:
    """Train with each configuration in order. Every rank calls this."""
    for values in runs:
        train(make_recipe("zero123plus", {**values, "num_workers": dist.get_world_size()}))
