"""What an executor on Ray has in flight."""

from collections.abc import Iterator

import pytest

from pipelines.execute import OnRay, _bounds
from pipelines.settings import BuildConfig


@pytest.fixture(scope="module")
def executor() -> Iterator[OnRay]:
    executor = OnRay(BuildConfig(source="objaverse@main", root="/root"), None)
    try:
        yield executor
    finally:
        executor.close()


def test_a_hub_bounds_the_downloads_of_a_large_cluster(executor, monkeypatch):
    cores = {"CPU": 10_000.0}
    monkeypatch.setattr(executor, "_resources", lambda: cores)
    # 3,000 requests in 300 s, for ten minutes.
    assert executor.room("fetch") == 6000
    assert executor.room("render") == 20_000
    cores["CPU"] = 64.0
    assert executor.room("fetch") == 512
    monkeypatch.setattr(executor, "_bounds", _bounds(BuildConfig(source="/glbs", root="/root")))
    cores["CPU"] = 10_000.0
    assert executor.room("fetch") == 80_000
