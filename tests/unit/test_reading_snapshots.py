"""The code of the page on reading snapshots: it runs, gives this project's values, imports none."""

import ast
import json
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

    def run(*texts: str) -> dict[str, Any]:
        (code,) = (code for code in CODE if texts[0] in code)
        for text in texts[1:]:
            code += "".join(code for code in CODE if text in code)
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
    page = run("torch.utils.data.Dataset", "def depth")
    dataset, depth = page["dataset"], page["depth"]
    samples = open_snapshot(root, snapshot).of_split("train")
    assert len(dataset) == len(samples) == 2
    assert dataset.rows["asset_id"].to_pylist() == [sample.asset_id for sample in samples]
    for index, sample in enumerate(samples):
        rgba, camera_to_world, intrinsics = dataset[index]
        views, _ = decode_views(
            read_members(root, sample.shard, sample.entry, sample.entry.members)
        )
        np.testing.assert_allclose(rgba.numpy() * 255, views.rgba, atol=1e-3)
        np.testing.assert_array_equal(depth(dataset.files(index)).numpy(), views.depth)
        poses = [camera.camera_to_world for camera in views.cameras]
        np.testing.assert_array_equal(camera_to_world.numpy(), np.stack(poses))
        lenses = [camera.intrinsics for camera in views.cameras]
        np.testing.assert_allclose(intrinsics.numpy(), np.stack(lenses), rtol=1e-6)


def test_the_example_for_pytorch_is_short():
    (code,) = (code for code in CODE if "torch.utils.data.Dataset" in code)
    lines = [line for line in code.splitlines() if line and not line.startswith(("import", "from"))]
    assert len(lines) <= 27


@pytest.mark.parametrize("lacks", [["names", "rig", "last_created"], ["names", "protected_until"]])
def test_manifests_of_earlier_versions_are_read(run, spheres, lacks: list[str]):
    root, snapshot = spheres
    path = f"snapshots/{snapshot}.json"
    manifest = root.read(path)
    old = {name: value for name, value in json.loads(manifest).items() if name not in lacks}
    root.write(path, json.dumps(old).encode())
    try:
        assert run("glob")["newest"]["snapshot"] == snapshot
    finally:
        root.write(path, manifest)


def test_the_other_readers_find_the_rows(run, spheres, capsys, tmp_path: Path):
    root, snapshot = spheres
    assert run("webdataset")["count"] == 3
    ids = [sample.asset_id for sample in open_snapshot(root, snapshot).samples]
    for text, file in (("duckdb", "ids.txt"), ("polars", "by.txt")):
        run(text)
        assert (tmp_path / file).read_text().split() == ids
    assert run("glob")["newest"]["snapshot"] == snapshot
    assert capsys.readouterr().out.count("by") >= 2
