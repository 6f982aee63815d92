"""The order of samples: every epoch has every sample once, for any sequence of world sizes."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data.order import permute, sample_at, sample_rng
from train.data.patches import batches, global_batch

seeds = st.integers(0, 2**63)


@given(st.integers(1, 700), seeds, st.integers(0, 5))
def test_an_epoch_is_a_permutation(size, seed, epoch):
    indices = [sample_at(epoch * size + i, size, seed) for i in range(size)]
    assert sorted(indices) == list(range(size))


def test_the_permutation_of_ten_million_samples_has_no_collisions():
    size = 10_000_000
    assert len({permute(index, size, (7, 0)) for index in range(0, size, 997)}) == len(
        range(0, size, 997)
    )


@given(st.integers(50, 300), seeds)
def test_epochs_and_seeds_differ(size, seed):
    first, second = ([sample_at(e * size + i, size, seed) for i in range(size)] for e in (0, 1))
    assert first != second
    assert first != [sample_at(i, size, seed + 1) for i in range(size)]


def positions_of_steps(
    first: int, last: int, batch: int, micro: int, world_size: int
) -> list[list[int]]:
    """Return the positions of each step, read by all ranks, in the order of the ranks."""
    ranks = [
        list(batches(first, last, batch, micro, rank, world_size)) for rank in range(world_size)
    ]
    num_micro = batch // world_size // micro
    assert {len(micro_batches) for micro_batches in ranks} == {(last - first) * num_micro}
    assert {len(positions) for micro_batches in ranks for positions in micro_batches} <= {micro}
    return [
        [
            p
            for micro_batches in ranks
            for positions in micro_batches[num_micro * step : num_micro * (step + 1)]
            for p in positions
        ]
        for step in range(last - first)
    ]


world_sizes = st.sampled_from([1, 2, 3, 8])


@given(st.integers(0, 20), st.integers(1, 6), world_sizes, st.integers(1, 3))
def test_any_world_size_reads_the_same_global_batches(first, count, world_size, micro):
    size = 24 * micro
    expected = [list(global_batch(step, size)) for step in range(first, first + count)]
    assert positions_of_steps(first, first + count, size, micro, world_size) == expected


@settings(max_examples=40)
@given(st.integers(1, 400), seeds, st.integers(1, 3), st.data())
def test_every_epoch_has_each_sample_once_for_any_world_sizes_and_stops(size, seed, epochs, data):
    """For any world size between resumes, the samples are those of one rank that never stopped."""
    batch = 24 * data.draw(st.integers(1, 3))
    steps = -(-epochs * size // batch)
    cuts = sorted({0, steps, *data.draw(st.lists(st.integers(0, steps), max_size=3))})
    order: list[int] = []
    for first, last in itertools.pairwise(cuts):
        world_size = data.draw(world_sizes)
        micro = data.draw(
            st.sampled_from([m for m in (1, 3, 8, 24) if batch // world_size % m == 0])
        )
        for positions in positions_of_steps(first, last, batch, micro, world_size):
            order += [sample_at(position, size, seed) for position in positions]
    for epoch in range(epochs):
        assert sorted(order[epoch * size : (epoch + 1) * size]) == list(range(size))
    assert order == [sample_at(position, size, seed) for position in range(len(order))]


def test_the_random_numbers_of_a_position_never_change():
    assert sample_rng(3, 10).random() == sample_rng(3, 10).random()
    assert sample_rng(3, 10).random() != sample_rng(3, 11).random()


def test_an_index_outside_the_permutation_is_an_error():
    with pytest.raises(IndexError):
        permute(5, 5, (0,))
