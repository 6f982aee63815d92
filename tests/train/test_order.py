"""The order of samples: every epoch sees every sample once, whoever shares the work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.data import batches, global_batch
from train.order import permute, sample_at, sample_rng

seeds = st.integers(0, 2**63)


@given(st.integers(1, 700), seeds, st.integers(0, 5))
def test_an_epoch_is_a_permutation(size, seed, epoch):
    seen = [sample_at(epoch * size + i, size, seed) for i in range(size)]
    assert sorted(seen) == list(range(size))


def test_ten_million_samples_need_no_memory_and_do_not_collide():
    size = 10_000_000
    assert len({permute(index, size, (7, 0)) for index in range(0, size, 997)}) == len(
        range(0, size, 997)
    )


@given(st.integers(50, 300), seeds)
def test_epochs_and_seeds_differ(size, seed):
    first, second = ([sample_at(e * size + i, size, seed) for i in range(size)] for e in (0, 1))
    assert first != second
    assert first != [sample_at(i, size, seed + 1) for i in range(size)]


@given(st.integers(0, 20), st.integers(1, 6), st.sampled_from([1, 2, 3, 4, 8]), st.integers(1, 3))
def test_any_number_of_workers_sees_the_same_global_batches(first, count, world, micro):
    size = 24 * micro
    for step in range(first, first + count):
        own = [
            [p for part in batches(step, step + 1, size, micro, rank, world) for p in part]
            for rank in range(world)
        ]
        assert sum(own, []) == list(global_batch(step, size))
        assert {len(positions) for positions in own} == {size // world}


def test_a_start_in_the_middle_goes_on_with_the_very_next_sample():
    whole = list(batches(0, 10, 8, 2, 1, 2))
    assert list(batches(4, 10, 8, 2, 1, 2)) == whole[4 * 2 :]


def test_the_draws_of_a_position_never_change():
    assert sample_rng(3, 10).random() == sample_rng(3, 10).random()
    assert sample_rng(3, 10).random() != sample_rng(3, 11).random()


def test_an_index_outside_is_refused():
    with pytest.raises(IndexError):
        permute(5, 5, (0,))
