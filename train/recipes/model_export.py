"""Export of a run's model as a weight file: the recipes that train a single model."""

from pathlib import Path

from torch import Tensor

from train.checkpoints.checkpoint import Checkpoint
from train.checkpoints.initial_weights import model_tensors
from train.models.lrm.published_weights import LRM_WEIGHTS
from train.models.pixel2mesh.pixel2mesh_weights import PIXEL2MESH_WEIGHTS
from train.models.weight_files.conversion import WeightsFamily
from train.models.weight_files.writing import check_ending, write_tensors

__all__ = ["write_lrm", "write_pixel2mesh"]

Tensors = dict[str, Tensor]


def write_lrm(checkpoint: Checkpoint, tensors: Tensors, out: Path) -> int:
    """Write a .ckpt or a .safetensors; return the number of tensors. Raises BadInput."""
    return _write(LRM_WEIGHTS, checkpoint, tensors, out)


def write_pixel2mesh(checkpoint: Checkpoint, tensors: Tensors, out: Path) -> int:
    """Write a .pt or a .safetensors; return the number of tensors. Raises BadInput."""
    return _write(PIXEL2MESH_WEIGHTS, checkpoint, tensors, out)


def _write(family: WeightsFamily, checkpoint: Checkpoint, tensors: Tensors, out: Path) -> int:
    check_ending(out, family.layouts)
    state = model_tensors(checkpoint, tensors)
    write_tensors(state, out, family.layouts)
    return len(state)
