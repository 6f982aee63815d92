"""Eight bits against floats: how far apart they may be, and where they must be equal."""

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
    """Soft discs of noise; what is hidden under zero alpha is noise as well."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :96] / 48 - 1
    found = []
    for _ in range(3):
        pixels = rng.integers(0, 256, (96, 96, 4), dtype=np.uint8)
        edge = (0.8 * rng.random() + 0.3 - np.hypot(x, y)) * 20
        pixels[..., 3] = (edge.clip(0, 1) * 255).round()
        found.append(pixels)
    return found


def test_on_white_is_right_to_half_a_level_and_exact_where_nothing_is_mixed(pictures):
    rgb, alpha = Colours.of(pictures).floats()
    exact, cover = composite(pictures)
    assert torch.equal(alpha, cover)
    assert (rgb - exact).abs().max() <= 0.5 * LEVEL + 1e-6
    whole = ((cover == 0) | (cover == 1)).expand_as(rgb)
    assert 0.1 < whole.float().mean() < 1
    assert torch.allclose(rgb[whole], exact[whole], atol=1e-6)
    assert rgb.max() <= 1


@pytest.mark.parametrize("side", [31, 64, 95, 130])
def test_other_sizes_are_those_of_floats_to_two_levels(pictures, side):
    rgb, alpha = Colours.of(pictures).resized(side).floats()
    exact, cover = (
        F.interpolate(each, (side, side), mode="bilinear", antialias=True)
        for each in composite(pictures)
    )
    assert (alpha - cover).abs().max() <= 1.01 * LEVEL
    assert (rgb - exact).abs().max() <= 2 * LEVEL
    assert (rgb - exact).abs().mean() <= 0.5 * LEVEL


def test_a_window_is_a_part_of_the_whole_and_some_views_are_those(pictures):
    windows = [Window(3, 5, 20, 24), Window(0, 0, 20, 24), Window(44, 40, 20, 24)]
    whole = Colours.of(pictures).resized(64)
    found = whole.cropped(windows).floats()
    for part, all_of_it in zip(found, whole.floats(), strict=True):
        for i, (top, left, height, width) in enumerate(windows):
            expected = all_of_it[i, :, top : top + height, left : left + width]
            assert torch.equal(part[i], expected)
    some = Colours.of(pictures).resized(64, slice(2)).floats()[0]
    assert torch.equal(some, whole.floats()[0][:2])


def test_the_published_way_stays_in_floats(pictures):
    colours = Colours.of(pictures, published=True)
    rgb, alpha = composite(pictures)
    expected = resize({"rgb": rgb, "alpha": alpha}, 40, published=True)
    found = colours.resized(40).cropped([Window(1, 2, 30, 30)] * 3).floats()
    for part, whole in zip(found, expected.values(), strict=True):
        assert torch.equal(part, whole[..., 1:31, 2:32])


def test_views_of_several_sizes_are_refused(pictures):
    with pytest.raises(ValueError, match=r"\(96, 96\) and \(48, 48\)"):
        Colours.of([pictures[0], pictures[1][::2, ::2].copy()])
