"""The loader: the same batches from a thread and from processes, limited prefetch, errors."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from dataset.snapshots.snapshot import open_snapshot
from tests.support.paths import REPOSITORY
from train.data.loader import make_loader
from train.data.patches import ViewDataConfig, ViewDataset
from train.data.sample_dataset import Reading
from train.data.surface_views import SurfaceDataConfig, SurfaceViewDataset

CONFIG = ViewDataConfig(
    num_inputs=3, num_targets=2, patch_size=32, target_size_min=48, target_size_max=64
)
POSITIONS = [[0, 1], [5, 4], [2, 3]]


class Numbers:
    """Dataset whose item n is the number n. Positions from `bad` on fail; reads are recorded."""

    def __init__(self, bad: int = 99) -> None:
        self.positions_read: list[int] = []
        self.reads = threading.Semaphore(0)
        self._bad = bad

    def read(self, position: int) -> Reading:
        self.positions_read.append(position)
        self.reads.release()
        if position >= self._bad:
            raise ValueError(f"no item {position}")
        return Reading({"n": torch.tensor(position)})


@pytest.mark.parametrize("kind", [ViewDataset, SurfaceViewDataset])
def test_loader_processes_and_the_thread_return_the_items_of_the_dataset(surface_dataset, kind):
    root, snapshot = surface_dataset
    samples = open_snapshot(root, snapshot).samples
    if kind is ViewDataset:
        dataset = ViewDataset(root, samples, CONFIG, input_size=40, seed=5)
    else:
        dataset = SurfaceViewDataset(root, samples, SurfaceDataConfig(), image_size=40, seed=5)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    for workers, prefetch in ((0, 1), (2, 3)):
        loaded = list(make_loader(dataset, POSITIONS, workers, prefetch))
        assert len(loaded) == len(POSITIONS)
        for positions, batch in zip(POSITIONS, loaded, strict=True):
            for row, position in enumerate(positions):
                item = dataset[position]
                assert item.keys() == batch.tensors.keys()
                assert all(torch.equal(item[name], batch.tensors[name][row]) for name in item)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_thread_prefetches_exactly_one_batch():
    dataset = Numbers()
    loader = make_loader(dataset, [[n] for n in range(9)], 0)
    next(loader)
    for _ in range(2):  # the batch in use, and the prefetched next one
        assert dataset.reads.acquire(timeout=20)
    assert not dataset.reads.acquire(timeout=0.05)
    assert dataset.positions_read == [0, 1]
    loader.close()
    assert dataset.positions_read == [0, 1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_an_error_in_the_thread_is_raised_when_its_batch_is_requested():
    loader = make_loader(Numbers(bad=2), [[n] for n in range(4)], 0)
    assert [next(loader).tensors["n"].item() for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="no item 2"):
        next(loader)


def test_loader_processes_start_with_a_long_temporary_folder(tmp_path):
    """Their sockets would be in it, and names of sockets have at most 107 bytes."""
    long_folder = tmp_path / ("n" * 110)
    long_folder.mkdir()
    script = tmp_path / "load.py"
    script.write_text("""
from multiprocessing.util import get_temp_dir
from pathlib import Path
import torch
from train.data.loader import make_loader
from train.data.sample_dataset import Reading
from train.data.surface_views import SurfaceDataConfig, SurfaceViewDataset

class Numbers:
    def read(self, position):
        return Reading({"n": torch.tensor(position)})

if __name__ == "__main__":
    print(*(batch.tensors["n"].item() for batch in make_loader(Numbers(), [[3], [5]], 1)))
    print(Path(get_temp_dir()).parent)
""")
    environment = {**os.environ, "TMPDIR": str(long_folder), "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(
        [sys.executable, script], env=environment, cwd="/", capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")
    numbers, folder = result.stdout.splitlines()
    assert numbers == "3 5"
    # A killed run leaves nothing else, and the next one removes it.
    assert Path(folder).name.startswith("lrm-scratch-loader-")
    assert not Path(folder).exists()
