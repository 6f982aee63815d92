"""An object gets as many samples as its pictures need, and no more."""

from pathlib import Path

import numpy as np
import pytest

from dataset.views import ViewSet
from render.blender.quality import ProbeImages, choose_samples, probe_views
from render.frames import srgb_from_linear
from render.job import Window
from render.process import BlenderProcess
from render.render_config import RenderConfig
from render.rigs import get_rig
from tests.support.bodies import Box, write_boxes

CAMERAS = get_rig("lrm32").cameras("objaverse:quality")[:2]
SIZE = 96


def probes(error: float, side: int = 40, alpha: float = 1.0) -> ProbeImages:
    """Of one grey square: the first is off by `error` in what is shown, the others are noisy."""
    rng = np.random.default_rng(3)
    truth, shape = 0.5**2.2, (side, side, 3)
    off = srgb_from_linear(np.array(truth)) + error * rng.choice((-1, 1), shape)
    colours = [((off + 0.055) / 1.055) ** 2.4, *(truth + rng.normal(0, 0.05, (2, *shape)))]
    first, second, third = (
        np.concatenate([colour, np.ones((side, side, 1))], axis=-1) * alpha for colour in colours
    )
    return first, second, third


@pytest.mark.parametrize("quality", [32.0, 36.0, 40.0])
def test_the_error_is_found_in_spite_of_the_noise(quality: float):
    """As many samples as the probe has where that is good enough, twice for 2.2 dB more."""
    pictures = [probes(10 ** (-quality / 20), side=200)]
    assert choose_samples(pictures, quality, 4, 64) == pytest.approx(8, abs=1)
    assert choose_samples(pictures, quality + 2.2, 4, 64) == pytest.approx(16, abs=2)
    assert choose_samples(pictures, quality + 2.2, 4, 12) == 12
    assert choose_samples(pictures, quality - 20, 4, 64) == 4


def test_what_is_far_out_of_reach_takes_no_more_than_the_probe():
    pictures = [probes(10 ** (-30 / 20), side=200)]
    assert choose_samples(pictures, 34, 4, 12) == 12
    assert choose_samples(pictures, 37, 4, 12) == 8
    assert choose_samples(pictures, 37, 10, 12) == 10
    assert choose_samples(pictures, 37, 4, 24) == 24


def test_a_flawless_probe_takes_the_fewest():
    assert choose_samples([probes(0.0, side=200)], 40, 4, 64) == 4


def test_what_cannot_be_judged_takes_the_most():
    """What shines through half-transparent pixels differs by chance, and few pixels tell little."""
    assert choose_samples([probes(0.0, side=200, alpha=0.5)], 40, 4, 64) == 64
    assert choose_samples([probes(0.0, side=12)], 20, 4, 64) == 64
    assert choose_samples([probes(0.0, side=12)] * 4, 20, 4, 64) == 4
    assert choose_samples([], 40, 4, 64) == 64
    first, second, third = probes(0.0)
    assert choose_samples([(first, second * np.nan, third)], 40, 4, 64) == 64


def test_probes_are_spread_over_the_views_that_show_the_object():
    window = Window(left=10, top=20, width=101, height=40)
    assert probe_views([window] * 32) == [8, 24]
    assert probe_views([None, *[window] * 8, None]) == [3, 7]
    assert probe_views([None, window]) == [1]
    assert probe_views([None]) == []


@pytest.fixture(scope="module")
def crate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One box: plain, matt, and nothing shades it."""
    return write_boxes(
        tmp_path_factory.mktemp("crate") / "crate.glb",
        [Box((-1, -1, -1), (1, 1, 1), (90, 120, 200))],
    )


def test_a_plain_object_takes_few_and_says_so(blender: BlenderProcess, crate: Path):
    blender.open(crate, "cube")
    _, report = blender.render(CAMERAS, RenderConfig(resolution=SIZE))
    assert report.samples == 4
    assert report.timings["probe"] > 0


def test_quality_decides(blender: BlenderProcess, block: Path):
    """The higher it is, the more samples, and the closer to what endless samples give."""
    blender.open(block, "cube")
    truth, _ = blender.render(CAMERAS, RenderConfig(resolution=SIZE, samples=256, denoise=False))
    found = [
        blender.render(CAMERAS, RenderConfig(resolution=SIZE, samples=48, quality=quality))
        for quality in (20.0, 52.0)
    ]
    assert found[0][1].samples == 4
    assert 16 < found[1][1].samples <= 48
    low, high = (error(views, truth) for views, _ in found)
    assert high < 0.7 * low


def test_what_is_asked_for_outright_is_not_judged(blender: BlenderProcess, block: Path):
    blender.open(block, "cube")
    for config in (
        RenderConfig(resolution=32, samples=3),
        RenderConfig(resolution=32, samples=9, min_samples=9),
        RenderConfig(resolution=32, samples=7, denoise=False),
    ):
        assert blender.render(CAMERAS, config)[1].samples == config.samples


def error(views: ViewSet, truth: ViewSet) -> float:
    solid = truth.rgba[..., 3] == 255
    difference = views.rgba[solid][:, :3].astype(float) - truth.rgba[solid][:, :3]
    return float(np.square(difference).mean())
