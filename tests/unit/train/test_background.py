"""The background's measures, against numbers that are known."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.evaluation.background import background_deviation, background_mask, background_spread


def square(side: int = 20) -> torch.Tensor:
    """Two views with an opaque square in the middle."""
    alpha = torch.zeros(2, 1, side, side)
    alpha[:, :, 8:12, 8:12] = 1
    return alpha


def test_the_background_keeps_away_from_the_object():
    for margin in range(4):
        there = background_mask(square(), margin)
        assert (~there).sum() == 2 * (4 + 2 * margin) ** 2
    faint = torch.zeros(1, 1, 4, 4)
    faint[0, 0, 1, 1] = 0.01
    assert not background_mask(faint)[0, 1, 1]


@given(level=st.floats(0, 1), other=st.floats(0, 1))
def test_grey_is_as_far_from_white_as_it_is_dark(level: float, other: float):
    views = torch.stack([torch.full((3, 20, 20), value) for value in (level, other)])
    there = background_mask(square())
    views[:, :, 8:12, 8:12] = 0.3  # the object: of no account
    mean, high = background_deviation(views, there)
    assert float(mean) == pytest.approx(1 - (level + other) / 2, abs=1e-5)
    assert float(high) == pytest.approx(1 - min(level, other), abs=1e-5)
    assert float(background_spread(views, there)) == pytest.approx(abs(level - other), abs=1e-5)


def test_the_percentile_is_that_of_a_ramp():
    ramp = torch.linspace(0, 1, 101).view(1, 1, 1, 101).expand(1, 3, 1, 101)
    mean, high = background_deviation(ramp, torch.ones(1, 1, 101, dtype=torch.bool))
    assert float(mean) == pytest.approx(0.5)
    assert float(high) == pytest.approx(0.95)


def test_white_is_perfect_and_a_colour_counts_by_channel():
    there = background_mask(square())
    white = torch.ones(2, 3, 20, 20)
    assert [float(one) for one in background_deviation(white, there)] == [0, 0]
    assert float(background_spread(white, there)) == 0
    tinted = white.clone()
    tinted[1, 2] = 0.7  # blue is missing in one view
    mean, high = background_deviation(tinted, there)
    assert float(mean) == pytest.approx(0.05)
    assert float(high) == pytest.approx(0.1)
    assert float(background_spread(tinted, there)) == pytest.approx(0.3)


def test_without_a_background_there_is_nothing_to_deviate():
    nowhere = torch.zeros(2, 20, 20, dtype=torch.bool)
    views = torch.zeros(2, 3, 20, 20)
    assert [float(one) for one in background_deviation(views, nowhere)] == [0, 0]
    nowhere[0] = True
    assert float(background_spread(views, nowhere)) == 0
