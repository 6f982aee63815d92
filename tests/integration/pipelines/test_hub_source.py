"""Objaverse on the hub: the listing, the versions of files, and the caches."""

import gzip
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import objaverse
import pytest

from core.errors import BadInput
from pipelines.sources.hub import HuggingFaceObjaverse
from pipelines.sources.objaverse import OBJECT_PATHS
from pipelines.transfers.fetch_config import FetchConfig
from tests.support.fake_glbs import GOOD, OTHER, fake_glb
from tests.support.hub import COMMIT, Hub, serve_hub


def _json_gz(value: Any) -> bytes:
    return gzip.compress(json.dumps(value).encode())


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Write three models in two folders, one of them in LVIS; a fourth is listed without a file."""
    folder = tmp_path / "repository"
    numbers = {"0" * 32: "000-000", "1" * 32: "000-000", "2" * 32: "000-001", "3" * 32: "000-001"}
    paths = {uid: f"glbs/{number}/{uid}.glb" for uid, number in numbers.items()}
    files = {OBJECT_PATHS: _json_gz(paths), "lvis-annotations.json.gz": _json_gz({"a": ["2" * 32]})}
    for number in set(numbers.values()):
        metadata = {
            uid: {"name": uid[:3], "license": "by"} for uid in paths if numbers[uid] == number
        }
        files[f"metadata/{number}.json.gz"] = _json_gz(metadata)
    files |= {path: GOOD for uid, path in paths.items() if uid != "3" * 32}
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


@pytest.fixture
def hub(repository: Path) -> Iterator[Hub]:
    with serve_hub(repository) as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(objaverse, "_VERSIONED_PATH", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(hub: Hub, cache: Path, tmp_path: Path) -> HuggingFaceObjaverse:
    config = FetchConfig(partial_folder=str(tmp_path / "parts"), backoff_seconds=0.01)
    return HuggingFaceObjaverse(COMMIT, hub.address, "secret", config)


def test_the_listing_requests_only_the_metadata_that_it_needs(source, hub):
    parts = sorted(source.parts())
    assert sum(len(source.files(part, False)) for part in parts) == 4
    assert sum(len(source.files(part, True)) for part in parts) == 1
    assert not [path for path in hub.requests if "/metadata/" in path]
    objects = source.read_part(parts[0])
    assert [item.record.name for item in objects][:2] == ["000", "111"]
    metadata = [path for path in hub.requests if "/metadata/" in path]
    assert len(metadata) == 1, "only the part that is read"
    every = [item for part in parts for item in source.read_part(part)]
    assert [item.record.categories for item in every if item.record.categories] == [("a",)]
    assert not [path for path in hub.requests if path.endswith(".glb")]


def test_a_commit_that_changes_no_file_keeps_the_versions(source, hub, repository):
    before, files = source.parts(), source.files("000-001", False)
    reopened = HuggingFaceObjaverse(*source.__reduce__()[1])
    assert (reopened.parts(), reopened.files("000-001", False)) == (before, files)
    (repository / f"glbs/000-001/{'2' * 32}.glb").write_bytes(OTHER)
    changed = HuggingFaceObjaverse(*source.__reduce__()[1])
    assert changed.parts() == before
    assert changed.files("000-000", False) == source.files("000-000", False)
    assert changed.files("000-001", False) != files


def test_without_file_trees_the_version_is_the_commit(source, hub):
    hub.lists_trees = False
    source.parts()
    (item, *_) = source.read_part("000-000")
    assert item.version == COMMIT


def test_odd_entries_of_trees_are_left_out(source, hub):
    expected = source.parts()
    hub.odd_entries = [None, 5, {"path": 3}, {"oid": "a"}, {"path": "glbs/000-000", "oid": None}]
    reopened = HuggingFaceObjaverse(*source.__reduce__()[1])
    assert reopened.parts() == expected


@pytest.mark.parametrize("tree", [b"<html>", b"[" * 100_000, b"5", b"[" + b"9" * 9_999 + b"]"])
def test_a_tree_that_cannot_be_read_is_no_tree(source, hub, tree):
    hub.tree = tree
    source.parts()
    assert set(source.files("000-000", False).values()) == {COMMIT}


def test_a_pickled_source_fetches_files(source, hub, tmp_path):
    source.parts()
    (item, *_) = source.read_part("000-000")
    worker = pickle.loads(pickle.dumps(source))
    fetched = worker.fetch(item.record.path, item.version, tmp_path / "x.glb")
    assert fetched.num_bytes == len(GOOD)
    assert f"/resolve/{COMMIT}/{item.record.path}" in hub.requests[-1]
    assert (tmp_path / "x.glb").read_bytes() == GOOD


@pytest.mark.parametrize("cached", [GOOD, OTHER, GOOD[:-5], fake_glb(3)])
def test_a_cached_model_is_used_only_if_its_hash_matches(
    source, hub, cache, tmp_path, cached, repository
):
    path = f"glbs/000-000/{'0' * 32}.glb"
    (cache / path).parent.mkdir(parents=True)
    (cache / path).write_bytes(cached)
    source.fetch(path, "any", tmp_path / "x.glb")
    assert (tmp_path / "x.glb").read_bytes() == GOOD
    assert len(hub.ranges) == (0 if cached == GOOD else 1), "requests to the content server"


def test_a_damaged_annotation_names_its_file(source, repository, cache):
    (repository / "metadata/000-000.json.gz").write_bytes(b"nonsense")
    source.parts()
    problem = r"metadata/000-000.json.gz is damaged: .*; delete /.*, and the next build"
    with pytest.raises(BadInput, match=problem):
        source.read_part("000-000")


def test_annotations_are_cached_by_commit(source, hub, cache, repository):
    source.parts()
    source.read_part("000-000")
    num_requests = len([path for path in hub.requests if "/resolve/" in path])
    again = HuggingFaceObjaverse(*source.__reduce__()[1])
    again.parts()
    again.read_part("000-000")
    assert len([path for path in hub.requests if "/resolve/" in path]) == num_requests
