"""Conversion to DeepSpeed's universal checkpoint, which any number of ranks can load."""

import os
import subprocess
import sys
from pathlib import Path

from core.atomic import atomic_folder
from core.errors import WorkFailed
from core.paths.plain_name import plain_name
from core.paths.remove_path import remove_path

__all__ = ["UNIVERSAL_INFO", "convert"]

UNIVERSAL_INFO = {"universal_checkpoint_info": {"universal_checkpoint_version": 0.2}}
"""Entries that a checkpoint's client state must have so that the checkpoint can be converted."""


def convert(source: Path, target: Path) -> None:
    """Write the universal form of a checkpoint's folder to `target`, atomically.

    A separate process converts, so that DeepSpeed's output does not mix with the run's. Raises
    WorkFailed.
    """
    remove_path(target, ignore_errors=True)
    with atomic_folder(target, sync=False) as temporary:
        _run_converter(source, temporary)


def _run_converter(source: Path, target: Path) -> None:
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    # The converter also writes to the parent of its output.
    with plain_name(source.parent) as read, plain_name(target.parent) as written:
        command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
        command += ["--input_folder", str(read / source.name)]
        command += ["--output_folder", str(written / target.name)]
        command += ["--num_extract_workers", "1", "--num_merge_workers", "1"]
        result = subprocess.run(
            command, check=False, capture_output=True, text=True, env=environment
        )
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise WorkFailed(
            f"{source}: cannot convert the checkpoint for another number of workers: "
            f"{lines[-1] if lines else f'exit code {result.returncode}'}"
            "; resume with the number of workers that wrote it"
        )
