"""Export of a run's model as a weight file: the recipes that train a single model."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from train.checkpoints.checkpoint import Checkpoint
from train.checkpoints.initial_weights import model_tensors
from train.models.lrm import published_weights
from train.models.pixel2mesh import pixel2mesh_weights

__all__ = ["write_lrm", "write_pixel2mesh"]

Tensors = dict[str, Tensor]


def write_lrm(checkpoint: Checkpoint, tensors: Tensors, out: Path) -> int:
    """Write a .ckpt or a .safetensors; return the number of tensors. Raises BadInput."""
    published_weights.check_ending(out)
    return _write(checkpoint, tensors, out, published_weights.write_weights)


def write_pixel2mesh(checkpoint: Checkpoint, tensors: Tensors, out: Path) -> int:
    """Write a .pt or a .safetensors; return the number of tensors. Raises BadInput."""
    pixel2mesh_weights.check_ending(out)
    return _write(checkpoint, tensors, out, pixel2mesh_weights.write_weights)


def _write(
    checkpoint: Checkpoint, tensors: Tensors, out: Path, write: Callable[[Tensors, Path], None]
) -> int:
    state = model_tensors(checkpoint, tensors)
    write(state, out)
    return len(state)
