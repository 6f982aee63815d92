"""Writing of weights, and errors of the libraries that write them, as one line."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from core.atomic import atomic_file
from core.errors import BadInput, WorkFailed, cannot_write, first_line

__all__ = ["Layouts", "check_ending", "write_tensors", "writing_weights"]

Layouts = Mapping[str, Callable[[dict[str, Tensor]], Any]]
"""Suffix of a PyTorch file -> function that returns its content for tensors."""


@contextmanager
def writing_weights(out: Path) -> Iterator[None]:
    """Raise an error of one line, with the remedy, if the block cannot write weights to `out`.

    It is BadInput for a wrong path, and WorkFailed for a full or failing disk.
    """
    problem = f"--out {out}: the weights cannot be written"
    try:
        yield
    except OSError as error:
        raise cannot_write(problem, error) from None
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise WorkFailed(
            f"{problem}: {first_line(error)}; free space on this disk or give another --out, and "
            "run the same command again"
        ) from None


def write_tensors(state: Mapping[str, Tensor], path: Path, layouts: Layouts) -> None:
    """Write tensors atomically in float32: in one of the layouts, or as .safetensors.

    Raises BadInput for any other suffix or a wrong path, and WorkFailed for a full disk.
    """
    check_ending(path, layouts)
    values = {key: value.detach().cpu().float().contiguous() for key, value in state.items()}
    with writing_weights(path), atomic_file(path) as temporary:
        if path.suffix in layouts:
            torch.save(layouts[path.suffix](values), temporary)
        else:
            safetensors.torch.save_file(values, temporary, metadata={"format": "pt"})


def check_ending(path: Path, layouts: Layouts) -> None:
    """Raise BadInput unless the path has a suffix of a format that can be written."""
    if path.suffix not in (*layouts, ".safetensors"):
        formats = " or ".join((*layouts, ".safetensors"))
        raise BadInput(f"{path}: unknown format; weights are written as {formats}")
