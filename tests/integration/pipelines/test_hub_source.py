"""Objaverse on the hub: the listing, the versions of files, and the caches."""

import gzip
import json
import logging
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import objaverse
import pytest

import pipelines.sources.cached_tables
import pipelines.sources.hub
from core.errors import BadInput
from pipelines.sources.hub import HuggingFaceObjaverse
from pipelines.sources.objaverse import LVIS, OBJECT_PATHS
from pipelines.sources.source import SourceObject
from pipelines.transfers.fetch_config import FetchConfig
from pipelines.transfers.outcome import FetchFailed
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


def read_all(source: HuggingFaceObjaverse) -> list[SourceObject]:
    """Read the whole listing, as a new process does."""
    fresh = HuggingFaceObjaverse(*source.__reduce__()[1])
    return [item for part in fresh.parts() for item in fresh.read_part(part)]


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


@pytest.mark.parametrize(
    "tree",
    [b"<html>", b"[" * 100_000, b"5", b"[" + b"9" * 9_999 + b"]"],
    ids=["page", "deep", "number", "digits"],
)
def test_a_tree_that_cannot_be_read_is_refused(source, hub, tree):
    """Taken for a hub without trees, one wrong answer would fetch every object again."""
    hub.tree = tree
    with pytest.raises(BadInput, match=r"cannot list the folder metadata .*the answer is not"):
        source.parts()


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


@pytest.mark.parametrize(
    ("path", "wrong", "redirect"),
    [
        # Without a redirect, the hub itself announces the content's size and SHA-256.
        (OBJECT_PATHS, b"<html>Sign in</html>", True),
        (OBJECT_PATHS, _json_gz([1]), False),
        ("metadata/000-000.json.gz", b"", True),
    ],
    ids=["a page", "another form", "nothing"],
)
def test_a_table_that_cannot_be_read_is_not_kept(
    source, hub, repository, cache, path, wrong, redirect
):
    hub.redirect = redirect
    right = (repository / path).read_bytes()
    (repository / path).write_bytes(wrong)
    with pytest.raises(BadInput, match=rf"cannot read {path}: http://.*HF_ENDPOINT"):
        read_all(source)
    assert not list(cache.rglob(Path(path).name))
    (repository / path).write_bytes(right)
    assert len(read_all(source)) == 4


@pytest.mark.parametrize(
    ("path", "damage", "has_digest"),
    # Without a digest, any readable table is accepted.
    [
        (OBJECT_PATHS, "cut", False),
        (OBJECT_PATHS, "zeros", True),
        (LVIS, "page", False),
        ("metadata/000-000.json.gz", "empty", True),
        ("metadata/000-000.json.gz", "other", True),
    ],
)
def test_a_damaged_table_in_the_cache_is_fetched_again_once(
    source, hub, cache, caplog, path, has_digest, damage
):
    expected = read_all(source)
    (cached,) = cache.rglob(Path(path).name)
    right = cached.read_bytes()
    (digest,) = cache.rglob(f".{cached.name}.sha256")
    if not has_digest:
        digest.unlink()
    wrong = {
        "cut": right[:-9],
        "zeros": b"\0" * len(right),
        "page": b"<html>",
        "empty": b"",
        "other": _json_gz({}),
    }
    cached.write_bytes(wrong[damage])
    del hub.requests[:]
    with caplog.at_level(logging.WARNING):
        assert read_all(source) == expected
    assert [line for line in hub.requests if "/resolve/" in line and path in line] == [
        f"GET /datasets/allenai/objaverse/resolve/{COMMIT}/{path}"
    ]
    assert cached.read_bytes() == right
    (message,) = caplog.messages
    assert str(cached) in message
    assert "downloaded again" in message


def test_a_folder_in_place_of_a_cached_table_is_named(source, cache):
    (cache / COMMIT / OBJECT_PATHS).mkdir(parents=True)
    with pytest.raises(BadInput, match=str(cache / COMMIT / OBJECT_PATHS)):
        source.parts()


@pytest.mark.parametrize("problem", ["", "Read-only file system", "No space left on device"])
def test_a_table_in_the_cache_without_a_digest_is_used(
    source, hub, cache, monkeypatch, caplog, problem
):
    """Another program may have written it, to a folder that this one cannot write."""
    expected = read_all(source)
    for digest in cache.rglob(".*.sha256"):
        digest.unlink()

    def refuse(*_: Any) -> None:
        raise OSError(problem)

    if problem:
        monkeypatch.setattr(pipelines.sources.cached_tables, "atomic_write", refuse)
    del hub.requests[:]
    assert read_all(source) == expected
    assert not [path for path in hub.requests if "/resolve/" in path]
    assert caplog.messages == []
    assert len(list(cache.rglob(".*.sha256"))) == (0 if problem else 4)


def test_a_cache_that_cannot_be_written_is_named(source, cache):
    cache.write_text("a file in the place of the folder")
    with pytest.raises(BadInput, match=rf"cannot write the download: .*the cache is {cache}"):
        source.parts()
    cache.unlink()


def test_two_processes_may_download_a_table_at_once(source, hub, cache):
    with ThreadPoolExecutor(4) as pool:
        listings = list(pool.map(lambda _: read_all(source), range(4)))
    assert all(listing == listings[0] for listing in listings)
    assert len(listings[0]) == 4
    assert read_all(source) == listings[0]
    assert not [path for path in cache.rglob("*") if "part" in path.name or "tmp" in path.name]


def test_a_table_has_a_size_limit_while_it_is_downloaded(source, hub, cache, monkeypatch):
    monkeypatch.setattr(pipelines.sources.hub, "MAX_BYTES", 20)
    with pytest.raises(BadInput, match=rf"{OBJECT_PATHS}: .* bytes; the limit is 20"):
        source.parts()
    assert hub.ranges == [], "nothing was requested from the content server"


def test_a_model_above_the_limit_is_not_downloaded(source, hub, cache, tmp_path):
    path = f"glbs/000-000/{'0' * 32}.glb"
    (cache / path).parent.mkdir(parents=True)
    (cache / path).write_bytes(GOOD)
    with pytest.raises(FetchFailed, match=f"{len(GOOD)} bytes; the limit is 99") as raised:
        source.fetch(path, "any", tmp_path / "x.glb", 99)
    assert raised.value.kind == "too_large"
    assert hub.ranges == []
    assert not (tmp_path / "x.glb").exists()


def test_annotations_are_cached_by_commit(source, hub, cache, repository):
    source.parts()
    source.read_part("000-000")
    num_requests = len([path for path in hub.requests if "/resolve/" in path])
    again = HuggingFaceObjaverse(*source.__reduce__()[1])
    again.parts()
    again.read_part("000-000")
    assert len([path for path in hub.requests if "/resolve/" in path]) == num_requests
