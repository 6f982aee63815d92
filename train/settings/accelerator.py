"""Which accelerator DeepSpeed takes: decided before it is imported, never by what it finds."""

import os

import torch

__all__ = ["choose_accelerator"]


def choose_accelerator() -> bool:
    """Tell DeepSpeed to take the CPU where PyTorch has no GPU; whether it has one."""
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    return on_gpu
