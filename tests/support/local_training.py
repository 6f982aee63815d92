"""Training in the process of the test, with a process group of one rank."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any
from unittest import mock

from tests.support.lrm import Answer, run_lrm

__all__ = ["run_local_training"]


def run_local_training(*words: Any, **environment: str) -> Answer:
    """Run `lrm train ... --address none` in this process; may be called repeatedly.

    A new process would need several seconds to import PyTorch and DeepSpeed.
    """
    with _restored_process_groups():
        return run_lrm(*words, "--address", "none", **environment)


@contextlib.contextmanager
def _restored_process_groups() -> Iterator[None]:
    """Restore DeepSpeed's process groups, because those of the block are destroyed at its end."""
    from train.settings.accelerator import choose_accelerator

    with mock.patch.dict(os.environ):
        choose_accelerator()
        from deepspeed.comm import comm
        from deepspeed.utils import groups

    saved = {name: value for name, value in vars(groups).items() if name.isupper()}
    backend = comm.cdb
    try:
        yield
    finally:
        for name, value in saved.items():
            setattr(groups, name, value)
        comm.cdb = backend
