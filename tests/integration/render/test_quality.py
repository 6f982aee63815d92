"""Adaptive samples: the number of samples per pixel that an object's pictures need."""

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
from tests.support.analytic_shapes import Box, write_boxes

CAMERAS = get_rig("lrm32").cameras("objaverse:quality")[:2]
SIZE = 96


def probes(error: float, side: int = 40, alpha: float = 1.0) -> ProbeImages:
    """Return probes of a grey square: the first is off by `error` in sRGB, the others are noisy."""
    rng = np.random.default_rng(3)
    truth, shape = 0.5**2.2, (side, side, 3)
    shown = srgb_from_linear(np.array(truth)) + error * rng.choice((-1, 1), shape)
    colours = [((shown + 0.055) / 1.055) ** 2.4, *(truth + rng.normal(0, 0.05, (2, *shape)))]
    first, second, third = (
        np.concatenate([colour, np.ones((side, side, 1))], axis=-1) * alpha for colour in colours
    )
    return first, second, third


@pytest.mark.parametrize("quality", [32.0, 36.0, 40.0])
def test_the_error_is_estimated_in_spite_of_noise(quality: float):
    """2.2 dB more need twice the samples, within the minimum and the maximum."""
    pictures = [probes(10 ** (-quality / 20), side=200)]
    assert choose_samples(pictures, quality, 4, 64) == pytest.approx(8, abs=1)
    assert choose_samples(pictures, quality + 2.2, 4, 64) == pytest.approx(16, abs=2)
    assert choose_samples(pictures, quality + 2.2, 4, 12) == 12
    assert choose_samples(pictures, quality - 20, 4, 64) == 4


def test_an_unreachable_quality_takes_fewer_samples():
    pictures = [probes(10 ** (-30 / 20), side=200)]
    assert choose_samples(pictures, 34, 4, 12) == 12
    assert choose_samples(pictures, 37, 4, 12) == 8
    assert choose_samples(pictures, 37, 10, 12) == 10
    assert choose_samples(pictures, 37, 4, 24) == 24


def test_a_probe_without_error_takes_the_minimum():
    assert choose_samples([probes(0.0, side=200)], 40, 4, 64) == 4


def test_an_error_that_cannot_be_estimated_takes_the_maximum():
    """Holds for half-transparent pixels, whose error is random, and for too few pixels."""
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
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write one plain, matt box."""
    return write_boxes(
        tmp_path_factory.mktemp("box") / "box.glb",
        [Box((-1, -1, -1), (1, 1, 1), (90, 120, 200))],
    )


def test_a_plain_object_takes_the_minimum_and_reports_it(blender: BlenderProcess, box: Path):
    blender.open(box, "cube")
    _, report = blender.render(CAMERAS, RenderConfig(resolution=SIZE))
    assert report.samples == 4
    assert report.timings["probe"] > 0


def test_a_higher_quality_takes_more_samples(blender: BlenderProcess, block: Path):
    """A higher quality takes more samples and is closer to a render with many samples."""
    blender.open(block, "cube")
    truth, _ = blender.render(CAMERAS, RenderConfig(resolution=SIZE, samples=256, denoise=False))
    renders = [
        blender.render(CAMERAS, RenderConfig(resolution=SIZE, samples=48, quality=quality))
        for quality in (20.0, 52.0)
    ]
    assert renders[0][1].samples == 4
    assert 16 < renders[1][1].samples <= 48
    low, high = (error(views, truth) for views, _ in renders)
    assert high < 0.7 * low


def test_fixed_numbers_of_samples_are_not_probed(blender: BlenderProcess, block: Path):
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
