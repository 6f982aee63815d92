"""Training on real file systems that are too small: a full disk, and little shared memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY
from tests.support.train_arguments import nerf_arguments

FULL = """
import json, sys, threading, time
from pathlib import Path
from tests.support.lrm import spawn_lrm

disk, words = Path(sys.argv[1]), sys.argv[2:]

def fill():
    while not list(disk.glob("run/checkpoints/*/manifest.json")):
        time.sleep(0.01)
    with open(disk / "filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass

threading.Thread(target=fill, daemon=True).start()
first = spawn_lrm(*words, "--address", "none")
(disk / "filler").unlink()
status = spawn_lrm("train", "--status", disk / "run", "--verify", "--json")
second = spawn_lrm(*words, "--address", "none")
answers = [vars(answer) for answer in (first, status, second)]
print(json.dumps(answers))
"""
SHARED = """
import torch
from train.data.loader import make_loader
from train.data.sample_dataset import Reading

class Large:
    def read(self, position):
        return Reading({"x": torch.zeros(1_000_000)})

if __name__ == "__main__":
    try:
        for _ in make_loader(Large(), [[n] for n in range(4)], 1):
            pass
    except Exception as error:
        print(type(error).__name__, error)
"""


def with_tmpfs(folder: Path, size: str, *command: object) -> str:
    """Run a command where `folder` is a file system of this size; return its standard output."""
    mount = f'mount -t tmpfs -o size={size} none {folder} && exec "$@"'
    namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    process = subprocess.run(
        [*namespace, *map(str, command)], capture_output=True, text=True, cwd=REPOSITORY
    )
    if process.stderr.startswith("unshare: "):
        pytest.skip("this system has no user namespaces")
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_a_disk_that_fills_up_costs_no_checkpoint_and_the_run_continues(sphere_dataset, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    words = nerf_arguments(sphere_dataset, disk / "run", 6, "--max-failed-saves", "1")
    output = with_tmpfs(disk, "150m", sys.executable, "-c", FULL, disk, *words)
    first, status, second = json.loads(output.splitlines()[-1])
    assert first["code"] == 1, first
    line = first["err"].splitlines()[-1]
    assert line.startswith("lrm train: error: step 4: 1 checkpoints in a row could not be written")
    assert "free disk space" in line
    assert "Traceback" not in first["err"]
    assert status["code"] == 0
    assert [row["step"] for row in json.loads(status["out"])["checkpoints"]] == [2]
    assert second["code"] == 0, second
    assert "resumed after step 2" in second["out"]


def test_too_little_shared_memory_is_named_with_its_remedy(tmp_path):
    script = tmp_path / "load.py"
    script.write_text(SHARED)
    command = ["env", f"PYTHONPATH={REPOSITORY}", sys.executable, script]
    line = with_tmpfs(Path("/dev/shm"), "64k", *command).splitlines()[-1]
    assert line.startswith("WorkFailed a loader worker has no shared memory left: enlarge /dev/shm")
