"""The metrics of the background against closed forms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.evaluation.background import background_deviation, background_mask, background_spread


def square_alpha(side: int = 20) -> torch.Tensor:
    """Return the alpha of two views with an opaque square in the middle."""
    alpha = torch.zeros(2, 1, side, side)
    alpha[:, :, 8:12, 8:12] = 1
    return alpha


def test_the_background_excludes_the_object_and_its_margin():
    for margin in range(4):
        mask = background_mask(square_alpha(), margin)
        assert (~mask).sum() == 2 * (4 + 2 * margin) ** 2
    faint_alpha = torch.zeros(1, 1, 4, 4)
    faint_alpha[0, 0, 1, 1] = 0.01
    assert not background_mask(faint_alpha)[0, 1, 1]


@given(level=st.floats(0, 1), other=st.floats(0, 1))
def test_the_deviation_of_a_grey_background_is_its_distance_from_white(level: float, other: float):
    views = torch.stack([torch.full((3, 20, 20), value) for value in (level, other)])
    mask = background_mask(square_alpha())
    views[:, :, 8:12, 8:12] = 0.3  # the object, which is not counted
    mean, percentile = background_deviation(views, mask)
    assert float(mean) == pytest.approx(1 - (level + other) / 2, abs=1e-5)
    assert float(percentile) == pytest.approx(1 - min(level, other), abs=1e-5)
    assert float(background_spread(views, mask)) == pytest.approx(abs(level - other), abs=1e-5)


def test_the_percentile_of_a_ramp_matches_its_closed_form():
    ramp = torch.linspace(0, 1, 101).view(1, 1, 1, 101).expand(1, 3, 1, 101)
    mean, percentile = background_deviation(ramp, torch.ones(1, 1, 101, dtype=torch.bool))
    assert float(mean) == pytest.approx(0.5)
    assert float(percentile) == pytest.approx(0.95)


def test_a_white_background_scores_zero_and_a_tint_counts_by_channel():
    mask = background_mask(square_alpha())
    white = torch.ones(2, 3, 20, 20)
    assert [float(value) for value in background_deviation(white, mask)] == [0, 0]
    assert float(background_spread(white, mask)) == 0
    tinted = white.clone()
    tinted[1, 2] = 0.7  # blue is missing in one view
    mean, percentile = background_deviation(tinted, mask)
    assert float(mean) == pytest.approx(0.05)
    assert float(percentile) == pytest.approx(0.1)
    assert float(background_spread(tinted, mask)) == pytest.approx(0.3)


def test_without_a_background_the_deviation_is_zero():
    mask = torch.zeros(2, 20, 20, dtype=torch.bool)
    views = torch.zeros(2, 3, 20, 20)
    assert [float(value) for value in background_deviation(views, mask)] == [0, 0]
    mask[0] = True
    assert float(background_spread(views, mask)) == 0
