"""Colours in eight bits against colours in floats: the largest error, and where they are equal."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from train.data.colours import Colours, composite
from train.data.resize import resize
from train.models.lrm.rays import Window

LEVEL = 1 / 255


@pytest.fixture
def pictures() -> list[np.ndarray]:
    """Return three discs of noise with soft edges, and noise under zero alpha."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :96] / 48 - 1
    discs = []
    for _ in range(3):
        pixels = rng.integers(0, 256, (96, 96, 4), dtype=np.uint8)
        edge = (0.8 * rng.random() + 0.3 - np.hypot(x, y)) * 20
        pixels[..., 3] = (edge.clip(0, 1) * 255).round()
        discs.append(pixels)
    return discs


def test_colours_on_white_are_exact_to_half_a_level_and_equal_where_nothing_is_blended(pictures):
    rgb, alpha = Colours.of(pictures).floats()
    exact_rgb, exact_alpha = composite(pictures)
    assert torch.equal(alpha, exact_alpha)
    assert (rgb - exact_rgb).abs().max() <= 0.5 * LEVEL + 1e-6
    unblended = ((exact_alpha == 0) | (exact_alpha == 1)).expand_as(rgb)
    assert 0.1 < unblended.float().mean() < 1
    assert torch.allclose(rgb[unblended], exact_rgb[unblended], atol=1e-6)
    assert rgb.max() <= 1


@pytest.mark.parametrize("side", [31, 64, 95, 130])
def test_resized_colours_equal_those_of_floats_to_two_levels(pictures, side):
    rgb, alpha = Colours.of(pictures).resized(side).floats()
    exact_rgb, exact_alpha = (
        F.interpolate(values, (side, side), mode="bilinear", antialias=True)
        for values in composite(pictures)
    )
    assert (alpha - exact_alpha).abs().max() <= 1.01 * LEVEL
    assert (rgb - exact_rgb).abs().max() <= 2 * LEVEL
    assert (rgb - exact_rgb).abs().mean() <= 0.5 * LEVEL


def test_windows_and_subsets_of_views_equal_those_parts_of_the_whole(pictures):
    windows = [Window(3, 5, 20, 24), Window(0, 0, 20, 24), Window(44, 40, 20, 24)]
    whole = Colours.of(pictures).resized(64)
    cropped = whole.cropped(windows).floats()
    for part, full in zip(cropped, whole.floats(), strict=True):
        for i, (top, left, height, width) in enumerate(windows):
            expected = full[i, :, top : top + height, left : left + width]
            assert torch.equal(part[i], expected)
    subset = Colours.of(pictures).resized(64, slice(2)).floats()[0]
    assert torch.equal(subset, whole.floats()[0][:2])


def test_published_resizing_is_computed_in_floats(pictures):
    colours = Colours.of(pictures, published=True)
    rgb, alpha = composite(pictures)
    expected = resize({"rgb": rgb, "alpha": alpha}, 40, published=True)
    cropped = colours.resized(40).cropped([Window(1, 2, 30, 30)] * 3).floats()
    for part, whole in zip(cropped, expected.values(), strict=True):
        assert torch.equal(part, whole[..., 1:31, 2:32])


def test_views_of_different_sizes_are_an_error(pictures):
    with pytest.raises(ValueError, match=r"\(96, 96\) and \(48, 48\)"):
        Colours.of([pictures[0], pictures[1][::2, ::2].copy()])
