"""Real models: good ones render and pass the check, bad ones fail by name and harm no other."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dataset.cameras import project
from dataset.views import ViewSet
from render.agreement import depth_agreement, find_patches, pairs_to_compare
from render.check import check_views
from render.process import BlenderProcess, RenderFailure
from render.render_config import RenderConfig
from render.rigs import get_rig
from tests.support.models import models

CONFIG = RenderConfig(resolution=96, samples=4)


@pytest.mark.parametrize("kind", ["textured", "animated", "untextured", "transparent"])
def test_models_render_and_pass_the_check(blender: BlenderProcess, mirror: Path, kind: str):
    for path in models(mirror, kind, 2):
        report = blender.open(path, "cube")
        assert max(report.timings.values()) < 60
        cameras = get_rig("lrm32").cameras(f"objaverse:{path.stem}")[:4]
        measured = blender.measure(cameras, num_points=20_000)
        assert np.abs(measured.points).max() == pytest.approx(1, abs=0.05)
        views, _ = blender.render(cameras, CONFIG)
        check_views(views)
        rendered = (views.rgba[..., 3] / 255).mean(axis=(1, 2))
        np.testing.assert_allclose(measured.coverage, rendered, atol=0.02)
        _surface_lies_where_the_pictures_show_it(measured.points, views)


def _surface_lies_where_the_pictures_show_it(points: np.ndarray, views) -> None:
    """No point of the surface stands before what a picture shows there (or in front of nothing)."""
    height, width = views.depth.shape[1:]
    for view, camera in enumerate(views.cameras):
        image, _ = project(camera, points)
        column, row = (image * (width, height)).astype(int).T
        inside = (column > 0) & (row > 0) & (column < width - 1) & (row < height - 1)
        alpha = views.rgba[view, ..., 3]
        around = [
            alpha[row[inside] + j, column[inside] + i] for j in (-1, 0, 1) for i in (-1, 0, 1)
        ]
        assert (np.max(around, axis=0) == 0).mean() < 0.05


@pytest.mark.parametrize("kind", ["textured", "animated", "lowpoly", "thin"])
def test_depths_and_normals_of_a_model_agree(blender: BlenderProcess, mirror: Path, kind: str):
    """Pixels that two views see lie at one depth, and normals are those that depth implies."""
    path = models(mirror, kind, 1)[0]
    blender.open(path, "cube")
    cameras = get_rig("lrm32").cameras(f"objaverse:{path.stem}")[:12]
    views, _ = blender.render(cameras, RenderConfig(resolution=128, samples=1, denoise=False))
    agreeing, seen = _agreement(views)
    assert seen > 500
    assert agreeing / seen >= 0.99
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
    """How many pixels that two views see agree, and how many there are."""
    patches = [find_patches(views, view) for view in range(len(views.cameras))]
    agreeing, seen = 0.0, 0
    for first, second in pairs_to_compare(views.cameras):
        share, count = depth_agreement(patches[first], views.cameras[second], views.depth[second])
        agreeing, seen = agreeing + share * count, seen + count
    return agreeing, seen


def _aligned(views: ViewSet) -> float:
    """The share of normals within 30 degrees of those that depth implies."""
    patches = [find_patches(views, view) for view in range(len(views.cameras))]
    cosines = np.concatenate([(part.facing * part.normals).sum(axis=-1) for part in patches])
    return float((cosines > np.cos(np.radians(30))).mean())


def test_malformed_models_fail_by_name(blender: BlenderProcess, mirror: Path):
    survivor = models(mirror, "textured", 1)[0]
    failed = 0
    for path in models(mirror, "malformed", 99):
        try:
            blender.open(path, "cube")
        except RenderFailure as failure:
            assert failure.kind in ("malformed", "external_reference", "empty"), path.stem
            failed += 1
    assert failed
    blender.open(survivor, "cube")
    assert blender.has_scene


def test_required_extensions_that_blender_lacks(blender: BlenderProcess, mirror: Path):
    kinds = set()
    for path in models(mirror, "extension", 99):
        try:
            blender.open(path, "cube")
        except RenderFailure as failure:
            kinds.add(failure.kind)
    assert kinds <= {"unsupported_extension"}
