"""Real models: good ones render and pass the check, bad ones fail by name and harm no other."""

import json
from pathlib import Path

import numpy as np
import pytest

from dataset.cameras import project
from render.check import check_views
from render.process import BlenderProcess, RenderFailure
from render.rigs import get_rig
from render.settings import RenderConfig

CONFIG = RenderConfig(resolution=96, samples=4)


def models(mirror: Path, kind: str, count: int) -> list[Path]:
    """The smallest files of a class."""
    labels = json.loads((mirror / "labels.json").read_text())
    uids = {uid for uid, label in labels.items() if label["class"] == kind}
    files = [path for path in mirror.glob("glbs/*/*.glb") if path.stem in uids]
    if not files:
        pytest.skip(f"the mirror has no model of class {kind!r}")
    return sorted(files, key=lambda path: path.stat().st_size)[:count]


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


def test_malformed_models_fail_by_name(blender: BlenderProcess, mirror: Path):
    survivor = models(mirror, "textured", 1)[0]
    failed = 0
    for path in models(mirror, "malformed", 99):
        try:
            blender.open(path, "cube")
        except RenderFailure as failure:
            assert failure.kind in ("refused", "import_error", "empty"), path.stem
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
