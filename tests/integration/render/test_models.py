"""Real models: valid ones render and pass the check, malformed ones fail with their own kind."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dataset.cameras import project
from dataset.views import ViewSet
from render.agreement import depth_agreement, find_patches, pairs_to_compare
from render.check import check_render, check_views
from render.process import BlenderProcess, RenderFailure
from render.render_config import RenderConfig
from render.rigs import get_rig
from tests.support.mirror_models import smallest_models

CONFIG = RenderConfig(resolution=96, samples=4)


@pytest.mark.parametrize("kind", ["textured", "animated", "untextured", "transparent"])
def test_models_render_and_pass_the_check(blender: BlenderProcess, mirror: Path, kind: str):
    for path in smallest_models(mirror, kind, 2):
        report = blender.open(path, "cube")
        assert max(report.timings.values()) < 60
        cameras = get_rig("lrm32").cameras(f"objaverse:{path.stem}")[:4]
        measured = blender.measure(cameras, num_points=20_000)
        assert np.abs(measured.points).max() == pytest.approx(1, abs=0.05)
        views, rendering = blender.render(cameras, CONFIG)
        assert check_render(views, rendering, CONFIG) < 0.01
        rendered = (views.rgba[..., 3] / 255).mean(axis=(1, 2))
        np.testing.assert_allclose(measured.coverage, rendered, atol=0.02)
        _assert_points_are_covered(measured.points, views)


def _assert_points_are_covered(points: np.ndarray, views) -> None:
    """Check that points of the surface project to pixels that are not transparent."""
    height, width = views.depth.shape[1:]
    for view, camera in enumerate(views.cameras):
        image, _ = project(camera, points)
        column, row = (image * (width, height)).astype(int).T
        inside = (column > 0) & (row > 0) & (column < width - 1) & (row < height - 1)
        alpha = views.rgba[view, ..., 3]
        neighbours = [
            alpha[row[inside] + j, column[inside] + i] for j in (-1, 0, 1) for i in (-1, 0, 1)
        ]
        assert (np.max(neighbours, axis=0) == 0).mean() < 0.05


@pytest.mark.parametrize("kind", ["textured", "animated", "lowpoly", "thin"])
def test_depths_and_normals_of_a_model_agree(blender: BlenderProcess, mirror: Path, kind: str):
    """Views agree on depth where they overlap, and normals agree with the depth."""
    path = smallest_models(mirror, kind, 1)[0]
    blender.open(path, "cube")
    cameras = get_rig("lrm32").cameras(f"objaverse:{path.stem}")[:12]
    views, _ = blender.render(cameras, RenderConfig(resolution=128, samples=1, denoise=False))
    num_agreeing, num_compared = _agreement(views)
    assert num_compared > 500
    assert num_agreeing / num_compared >= 0.99
    assert _aligned(views) > 0.95
    check_views(views)
    for order, signs in (
        ((0, 2, 1), (1, 1, 1)),
        ((0, 2, 1), (1, 1, -1)),
        ((0, 1, 2), (-1, -1, -1)),
    ):
        false = views.normals[..., order] * np.float32(signs)
        with pytest.raises(RenderFailure, match="normals fit the depth at only"):
            check_views(dataclasses.replace(views, normals=false))


def _agreement(views: ViewSet) -> tuple[float, int]:
    """Return the number of agreeing pixels of overlapping views, and of all pixels compared."""
    patches = [find_patches(views, view) for view in range(len(views.cameras))]
    num_agreeing, num_compared = 0.0, 0
    for first, second in pairs_to_compare(views.cameras):
        share, count = depth_agreement(patches[first], views.cameras[second], views.depth[second])
        num_agreeing, num_compared = num_agreeing + share * count, num_compared + count
    return num_agreeing, num_compared


def _aligned(views: ViewSet) -> float:
    """Return the share of normals within 30 degrees of those computed from depth."""
    patches = [find_patches(views, view) for view in range(len(views.cameras))]
    cosines = np.concatenate([(part.facing * part.normals).sum(axis=-1) for part in patches])
    return float((cosines > np.cos(np.radians(30))).mean())


def test_malformed_models_fail_with_their_own_kind(blender: BlenderProcess, mirror: Path):
    survivor = smallest_models(mirror, "textured", 1)[0]
    failed = 0
    for path in smallest_models(mirror, "malformed", 99):
        try:
            blender.open(path, "cube")
        except RenderFailure as failure:
            assert failure.kind in ("malformed", "external_reference", "empty"), path.stem
            failed += 1
    assert failed
    blender.open(survivor, "cube")
    assert blender.has_scene


def test_unsupported_required_extensions_are_named(blender: BlenderProcess, mirror: Path):
    kinds = set()
    for path in smallest_models(mirror, "extension", 99):
        try:
            blender.open(path, "cube")
        except RenderFailure as failure:
            kinds.add(failure.kind)
    assert kinds <= {"unsupported_extension"}
