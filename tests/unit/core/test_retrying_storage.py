"""Range reads of an object store: retries, timeouts and the local cache."""

import asyncio
import logging
import pickle
from typing import ClassVar

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem

from core.range_cache import RangeCache
from core.retrying_storage import ReadConfig, RetryingStorage
from core.storage import Storage

CONTENT = bytes(range(256)) * 8
RANGES = [(0, 10), (300, 310), (305, 400), (7, 7)]


class Store(AsyncFileSystem):
    """An object store with one object. Its reads fail or wait as `script` says."""

    protocol = "store"
    cachable = False
    script: ClassVar[list[object]] = []
    requests: ClassVar[list[tuple[int, int]]] = []

    async def _cat_file(self, path, start=None, end=None, **_):
        self.requests.append((start, end))
        step = self.script.pop(0) if self.script else None
        if isinstance(step, Exception):
            raise step
        if isinstance(step, float):
            await asyncio.sleep(step)
        return CONTENT[start:end]


@pytest.fixture(autouse=True)
def store():
    fsspec.register_implementation("store", Store, clobber=True)
    Store.script, Store.requests = [], []
    return Store


def make_storage(**changes) -> RetryingStorage:
    settings = {"backoff_seconds": 0, "attempts": 3} | changes
    return RetryingStorage("store://bucket", ReadConfig(**settings))


def expected() -> list[bytes]:
    return [CONTENT[start:stop] for start, stop in RANGES]


def test_transient_errors_are_retried(store, caplog):
    store.script = [OSError("slow down"), ConnectionResetError("gone")]
    with caplog.at_level(logging.WARNING):
        assert make_storage().read_ranges("a.tar", RANGES[:1]) == expected()[:1]
    assert [line.split(";")[1][:15] for line in caplog.messages] == [
        " attempt 2 of 3",
        " attempt 3 of 3",
    ]
    store.script = [OSError("slow down")] * 3
    with pytest.raises(OSError, match=r"slow down \(after 3 attempts\)"):
        make_storage().read_ranges("a.tar", RANGES[:1])


def test_a_missing_file_is_not_retried(store):
    store.script = [FileNotFoundError("a.tar")]
    with pytest.raises(FileNotFoundError):
        make_storage().read_ranges("a.tar", RANGES[:1])
    assert len(store.requests) == 1


def test_a_file_that_ends_too_early_is_an_error():
    with pytest.raises(EOFError, match="ends before byte 9999"):
        make_storage().read_ranges("a.tar", [(0, 9999)])


def test_a_read_that_hangs_is_aborted_and_retried(store):
    store.script = [30.0]
    assert make_storage(timeout_seconds=0.05).read_ranges("a.tar", RANGES[:1]) == expected()[:1]
    assert len(store.requests) == 2


def test_the_cache_is_shared_between_processes(store, tmp_path):
    assert make_storage(cache=tmp_path).read_ranges("a.tar", RANGES) == expected()
    num_requests = len(store.requests)
    other = pickle.loads(pickle.dumps(make_storage(cache=tmp_path)))
    assert other.read_ranges("a.tar", RANGES) == expected()
    assert len(store.requests) == num_requests
    other.read_ranges("b.tar", RANGES)
    assert len(store.requests) > num_requests


def test_a_whole_file_is_read_with_the_same_attempts_and_cached(store, tmp_path):
    store.script = [OSError("slow down"), 30.0]
    assert make_storage(timeout_seconds=0.05).read_immutable("a.npz") == CONTENT
    store.script = [OSError("slow down")] * 3
    with pytest.raises(OSError, match=r"slow down \(after 3 attempts\)"):
        make_storage().read_immutable("a.npz")
    assert make_storage(cache=tmp_path).read_immutable("a.npz") == CONTENT
    (cached,) = (path for path in tmp_path.rglob("*") if path.is_file())
    num_requests = len(store.requests)
    assert make_storage(cache=tmp_path).read_immutable("a.npz") == CONTENT
    assert len(store.requests) == num_requests
    for use_cache, damage in ((False, bytes), (True, lambda data: data[:-5])):
        cached.write_bytes(damage(cached.read_bytes()))
        assert make_storage(cache=tmp_path).read_immutable("a.npz", cached=use_cache) == CONTENT
        num_requests += 1
        assert len(store.requests) == num_requests


def test_a_damaged_or_short_range_in_the_cache_is_read_again(store, tmp_path):
    for damage in (lambda data: data[:3], lambda data: bytes(len(data))):
        make_storage(cache=tmp_path).read_ranges("a.tar", RANGES[:1])
        (cached,) = (path for path in tmp_path.rglob("*") if path.is_file())
        cached.write_bytes(damage(cached.read_bytes()))
        num_requests = len(store.requests)
        assert make_storage(cache=tmp_path).read_ranges("a.tar", RANGES[:1]) == expected()[:1]
        assert len(store.requests) == num_requests + 1


def test_a_cache_that_cannot_be_written_only_warns(tmp_path, caplog):
    (tmp_path / "file").touch()
    storage = make_storage(cache=tmp_path / "file")
    assert storage.read_ranges("a.tar", RANGES) == expected()
    assert "cannot use this folder as a cache" in caplog.text


def test_a_local_folder_is_not_cached(tmp_path):
    Storage(str(tmp_path / "data")).write("a.tar", CONTENT)
    storage = RetryingStorage(str(tmp_path / "data"), ReadConfig(cache=tmp_path / "cache"))
    assert storage.read_ranges("a.tar", RANGES) == expected()
    assert not (tmp_path / "cache").exists()


def test_the_cache_stays_within_its_limit_and_keeps_the_most_recently_used_ranges(tmp_path):
    cache = RangeCache(tmp_path, 1000)
    for n in range(20):
        cache.put("a", (n * 100, n * 100 + 100), bytes(100))
        assert cache.get("a", (0, 100)) is not None  # used every time
        num_bytes = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        assert num_bytes <= 1000
    assert cache.get("a", (100, 200)) is None
    assert cache.get("a", (1900, 2000)) == bytes(100)
    # A range larger than the cache is not stored, and nothing is evicted for it.
    cache.put("a", (0, 5000), bytes(5000))
    assert cache.get("a", (1900, 2000)) == bytes(100)
    RangeCache(tmp_path, 2000)
    # The folder of another limit is removed.
    assert [path.name for path in tmp_path.iterdir()] == ["ranges-2000"]
