"""Training in this process, as a process group of one."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any
from unittest import mock

from tests.support.lrm import Answer, run_lrm

__all__ = ["run_alone"]


def run_alone(*words: Any, **environment: str) -> Answer:
    """Run `lrm train ... --address none` in this process, as often as a test wants.

    A start of its own would import PyTorch and DeepSpeed for seconds.
    """
    with _kept_groups():
        return run_lrm(*words, "--address", "none", **environment)


@contextlib.contextmanager
def _kept_groups() -> Iterator[None]:
    """Let DeepSpeed forget the process group of the block, which ends with it."""
    from train.settings.accelerator import choose_accelerator

    with mock.patch.dict(os.environ):
        choose_accelerator()
        from deepspeed.comm import comm
        from deepspeed.utils import groups

    kept = {name: value for name, value in vars(groups).items() if name.isupper()}
    backend = comm.cdb
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(groups, name, value)
        comm.cdb = backend
