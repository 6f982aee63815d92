"""The code of the page on reading snapshots: it runs, gives this project's values, imports none."""

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.storage import Storage
from dataset.format.shards import read_members
from dataset.snapshots.snapshot import open_snapshot
from dataset.views import decode_views
from tests.support.pages import blocks
from tests.support.paths import REPOSITORY
from tests.support.sources import PACKAGES, imports
from tests.support.sphere_datasets import write_sphere_dataset

PAGE = REPOSITORY / "docs/guide/reading-snapshots.md"
CODE = [text for _, text in blocks(PAGE, "python")]


@pytest.fixture(scope="module")
def spheres(tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, str]:
    """Return a dataset of spheres below a folder, and the id of its snapshot."""
    splits = ("train", "train", "validation")
    return write_sphere_dataset(tmp_path_factory.mktemp("page") / "spheres", splits)


@pytest.fixture
def run(spheres: tuple[Storage, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that runs the blocks of the page that contain a text."""
    root, snapshot = spheres
    monkeypatch.chdir(tmp_path)

    def run(text: str) -> dict[str, Any]:
        (code,) = (code for code in CODE if text in code)
        code = re.sub(r"\bID\b", snapshot, re.sub(r"\bDATASET\b", root.uri, code))
        names: dict[str, Any] = {}
        exec(compile(code, str(PAGE), "exec"), names)
        return names

    return run


def test_no_block_imports_this_project():
    found = {name.split(".")[0] for code in CODE for name in imports(ast.parse(code))}
    assert not found & {*PACKAGES, "benchmarks"}
    assert {"torch", "duckdb", "polars", "webdataset"} <= found


def test_the_dataset_for_pytorch_has_the_values_of_the_views(run, spheres):
    root, snapshot = spheres
    dataset = run("torch.utils.data.Dataset")["dataset"]
    samples = open_snapshot(root, snapshot).of_split("train")
    assert len(dataset) == len(samples) == 2
    for item, sample in zip(dataset, samples, strict=True):
        views, _ = decode_views(
            read_members(root, sample.shard, sample.entry, sample.entry.members)
        )
        assert (item["asset_id"], item["caption"]) == (sample.asset_id, sample.caption)
        rgba = item["rgba"].permute(0, 2, 3, 1).numpy() * 255
        np.testing.assert_allclose(rgba, views.rgba, atol=1e-3)
        np.testing.assert_array_equal(item["depth"].numpy(), views.depth)
        poses = [camera.camera_to_world for camera in views.cameras]
        np.testing.assert_array_equal(item["camera_to_world"].numpy(), np.stack(poses))
        lenses = [camera.intrinsics for camera in views.cameras]
        np.testing.assert_allclose(item["intrinsics"].numpy(), np.stack(lenses), rtol=1e-6)


def test_the_other_readers_find_the_rows(run, spheres, capsys, tmp_path: Path):
    root, snapshot = spheres
    assert run("webdataset")["count"] == 3
    ids = [sample.asset_id for sample in open_snapshot(root, snapshot).samples]
    for text, file in (("duckdb", "ids.txt"), ("polars", "by.txt")):
        run(text)
        assert (tmp_path / file).read_text().split() == ids
    assert run("glob")["newest"]["snapshot"] == snapshot
    assert capsys.readouterr().out.count("by") >= 2
