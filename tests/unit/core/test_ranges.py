"""Coalesced byte ranges: nothing is missed or read twice, and little is wasted."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from core.ranges import coalesce

ranges = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 60)).map(lambda r: (r[0], r[0] + r[1])),
    max_size=12,
)
gaps = st.integers(0, 50)
waste = st.sampled_from([0.0, 0.25, 1.0, 100.0])


def covered(spans) -> list[int]:
    return [byte for start, stop in spans for byte in range(start, stop)]


@given(ranges, gaps, waste)
def test_every_wanted_byte_is_read_once_and_few_others(wanted, max_gap, max_waste):
    spans = coalesce(wanted, max_gap, max_waste)
    read, wanted_bytes = covered(spans), set(covered(wanted))
    assert wanted_bytes <= set(read)
    assert len(read) == len(set(read))
    assert read == sorted(read)
    assert len(set(read) - wanted_bytes) <= max_waste * len(wanted_bytes)


@given(ranges, gaps, waste)
def test_each_wanted_range_lies_in_one_span(wanted, max_gap, max_waste):
    spans = coalesce(wanted, max_gap, max_waste)
    for start, stop in wanted:
        assert start == stop or sum(a <= start and stop <= b for a, b in spans) == 1


@given(ranges, gaps)
def test_without_a_limit_of_waste_exactly_the_small_gaps_are_closed(wanted, max_gap):
    spans = coalesce(wanted, max_gap, max_waste=1e9)
    between = [later[0] - earlier[1] for earlier, later in pairwise(spans)]
    assert all(gap > max_gap for gap in between)
    wanted_bytes = set(covered(wanted))
    skipped = sorted(set(covered(spans)) - wanted_bytes)
    runs = [byte for byte in skipped if byte - 1 not in skipped]
    for start in runs:
        assert any(byte in wanted_bytes for byte in range(start, start + max_gap + 1))


def test_the_closest_neighbours_are_merged_first():
    wanted = [(0, 100), (120, 220), (225, 325)]  # gaps of 20 and 5
    assert coalesce(wanted, 50, max_waste=0.03) == [(0, 100), (120, 325)]
    assert coalesce(wanted, 50, max_waste=0.25) == [(0, 325)]
    assert coalesce(wanted, 10, max_waste=0.25) == [(0, 100), (120, 325)]


def test_gaps_as_small_as_headers_are_free():
    wanted = [(0, 1), (9, 10), (20, 21), (30, 31)]  # gaps of 8, 10 and 9
    assert coalesce(wanted, 50, free_gap=7) == wanted
    assert coalesce(wanted, 50, free_gap=9) == [(0, 10), (20, 31)]
    assert coalesce(wanted, 50, free_gap=10) == [(0, 31)]
    assert coalesce(wanted, 8, free_gap=10) == [(0, 10), (20, 21), (30, 31)]
