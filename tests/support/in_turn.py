"""Runs of the fine-tune of Zero123++ in one group of processes."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

from train.loop.engine import train
from train.recipes.registry import make_recipe


def train_in_turn(store: Path, runs: Sequence[dict[str, Any]], world: int) -> None:
    """Train with each configuration in one group: DeepSpeed takes seconds to import."""
    os.environ["OMP_NUM_THREADS"] = "1"
    given = (world, str(store), [{**values, "num_workers": world} for values in runs])
    torch.multiprocessing.start_processes(_train, given, nprocs=world, start_method="spawn")


def _train(rank: int, world: int, store: str, runs: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "DS_ACCELERATOR": "cpu"}
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    for values in runs:
        train(make_recipe("zero123plus", values))
    dist.destroy_process_group()
