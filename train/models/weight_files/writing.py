"""Errors of the libraries that write weights, as one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors

from core.errors import WorkFailed, cannot_write, first_line

__all__ = ["writing_weights"]


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
