"""DeepSpeed's accelerator, set before its import so that it does not detect one itself."""

import os

import torch

__all__ = ["choose_accelerator"]


def choose_accelerator() -> bool:
    """Make DeepSpeed use the CPU if PyTorch has no GPU; return whether it has one."""
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    return on_gpu
