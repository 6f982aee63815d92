"""Whoever reads the batches, and however far ahead: they are the same, and errors arrive."""

import threading

import pytest
import torch

from dataset.snapshots.snapshot import open_snapshot
from train.data.loader import make_loader
from train.data.patches import ViewDataConfig, ViewDataset
from train.data.sample_dataset import Reading

CONFIG = ViewDataConfig(
    num_inputs=3, num_targets=2, patch_size=32, target_size_min=48, target_size_max=64
)
PLAN = [[0, 1], [5, 4], [2, 3]]


class Numbers:
    """Item n is n; from `bad` on there are none. Knows which were asked for."""

    def __init__(self, bad: int = 99) -> None:
        self.asked: list[int] = []
        self.enough = threading.Semaphore(0)
        self._bad = bad

    def read(self, position: int) -> Reading:
        self.asked.append(position)
        self.enough.release()
        if position >= self._bad:
            raise ValueError(f"no item {position}")
        return Reading({"n": torch.tensor(position)})


def test_processes_and_the_thread_give_the_datasets_own_items(sphere_dataset):
    root, snapshot = sphere_dataset
    dataset = ViewDataset(
        root, open_snapshot(root, snapshot).samples, CONFIG, input_size=40, seed=5
    )
    torch.manual_seed(3)
    state = torch.get_rng_state()
    for workers, prefetch in ((0, 1), (2, 3)):
        loaded = list(make_loader(dataset, PLAN, workers, prefetch))
        assert len(loaded) == len(PLAN)
        for positions, batch in zip(PLAN, loaded, strict=True):
            for place, position in enumerate(positions):
                item = dataset[position]
                assert item.keys() == batch.tensors.keys()
                assert all(torch.equal(item[name], batch.tensors[name][place]) for name in item)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_thread_makes_one_batch_ahead_and_no_more():
    dataset = Numbers()
    loader = make_loader(dataset, [[n] for n in range(9)], 0)
    next(loader)
    for _ in range(2):  # the one in use, and the next without being asked for
        assert dataset.enough.acquire(timeout=20)
    assert not dataset.enough.acquire(timeout=0.05)
    assert dataset.asked == [0, 1]
    loader.close()
    assert dataset.asked == [0, 1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_an_error_of_the_thread_is_raised_where_its_batch_is_wanted():
    loader = make_loader(Numbers(bad=2), [[n] for n in range(4)], 0)
    assert [next(loader).tensors["n"].item() for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="no item 2"):
        next(loader)
