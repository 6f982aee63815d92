"""The order of samples: every epoch sees every sample once, whoever shares the work."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data.order import permute, sample_at, sample_rng
from train.data.patches import batches, global_batch

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


def seen(first: int, last: int, batch: int, micro: int, world: int) -> list[list[int]]:
    """The positions of each step, as its workers have them in the order of their ranks."""
    ranks = [list(batches(first, last, batch, micro, rank, world)) for rank in range(world)]
    turns = batch // world // micro
    assert {len(own) for own in ranks} == {(last - first) * turns}
    assert {len(part) for own in ranks for part in own} <= {micro}
    return [
        [p for own in ranks for part in own[turns * step : turns * (step + 1)] for p in part]
        for step in range(last - first)
    ]


worlds = st.sampled_from([1, 2, 3, 8])


@given(st.integers(0, 20), st.integers(1, 6), worlds, st.integers(1, 3))
def test_any_number_of_workers_sees_the_same_global_batches(first, count, world, micro):
    size = 24 * micro
    expected = [list(global_batch(step, size)) for step in range(first, first + count)]
    assert seen(first, first + count, size, micro, world) == expected


@settings(max_examples=40)
@given(st.integers(1, 400), seeds, st.integers(1, 3), st.data())
def test_every_epoch_has_each_sample_once_whoever_works_and_wherever_it_stops(
    size, seed, epochs, data
):
    """Workers come and go at any steps: the samples are those of one worker that never stopped."""
    batch = 24 * data.draw(st.integers(1, 3))
    steps = -(-epochs * size // batch)
    cuts = sorted({0, steps, *data.draw(st.lists(st.integers(0, steps), max_size=3))})
    order: list[int] = []
    for first, last in itertools.pairwise(cuts):
        world = data.draw(worlds)
        micro = data.draw(st.sampled_from([m for m in (1, 3, 8, 24) if batch // world % m == 0]))
        for positions in seen(first, last, batch, micro, world):
            order += [sample_at(position, size, seed) for position in positions]
    for epoch in range(epochs):
        assert sorted(order[epoch * size : (epoch + 1) * size]) == list(range(size))
    assert order == [sample_at(position, size, seed) for position in range(len(order))]


def test_the_draws_of_a_position_never_change():
    assert sample_rng(3, 10).random() == sample_rng(3, 10).random()
    assert sample_rng(3, 10).random() != sample_rng(3, 11).random()


def test_an_index_outside_is_refused():
    with pytest.raises(IndexError):
        permute(5, 5, (0,))
