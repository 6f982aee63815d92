"""A checkpoint of some number of workers, made fit for any other: DeepSpeed's universal form."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from core.errors import WorkFailed

__all__ = ["UNIVERSAL_INFO", "convert"]

UNIVERSAL_INFO = {"universal_checkpoint_info": {"universal_checkpoint_version": 0.2}}
"""What a checkpoint's client state must hold so that it can be converted."""


def convert(source: Path, target: Path) -> None:
    """Write the universal form of a checkpoint's folder to a new one, which is then whole.

    In a process of its own, which keeps DeepSpeed's words off ours. Raises WorkFailed.
    """
    made = target.with_name(f".{target.name}.tmp")
    for folder in (made, target):
        shutil.rmtree(folder, ignore_errors=True)
    made.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
    command += ["--input_folder", str(source), "--output_folder", str(made)]
    command += ["--num_extract_workers", "1", "--num_merge_workers", "1"]
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise WorkFailed(
            f"{source}: cannot be made fit for another number of workers: "
            f"{lines[-1] if lines else f'exit code {done.returncode}'}"
        )
    made.rename(target)
