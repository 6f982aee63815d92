"""The number of times that an object's file is fetched. No file is left in the scratch folder."""

from collections import Counter
from pathlib import Path

import pytest

from pipelines.building.build_config import BuildConfig
from pipelines.building.stages.worker_context import WorkerContext
from pipelines.building.tasks import Task, run_task
from pipelines.demo.demo_mirror import CAPTIONS_FILE
from pipelines.sources.mirror import Mirror
from tests.support.datasets import QUICK, events_of
from tests.support.listings import listed_state
from tests.support.lrm import run_lrm


@pytest.fixture
def fetch_counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return how often each file was fetched from a mirror."""
    counts: Counter[str] = Counter()
    fetch = Mirror.fetch

    def count_and_fetch(self, path, *others):
        counts[path] += 1
        return fetch(self, path, *others)

    monkeypatch.setattr(Mirror, "fetch", count_and_fetch)
    return counts


@pytest.mark.parametrize("keep_raw", [False, True])
def test_a_file_is_fetched_once_for_fetch_and_inspection(
    demo_source: Path, tmp_path: Path, fetch_counts: Counter[str], keep_raw: bool
):
    source, root = Mirror(str(demo_source)), tmp_path / "root"
    config = BuildConfig(source=source.name, root=str(root), keep_raw=keep_raw)
    digests = set()
    with WorkerContext(config, source) as context:
        for file in sorted(demo_source.glob("glbs/*/*.glb")):
            path = str(file.relative_to(demo_source))
            version = source.glb_versions(file.parent.name)[file.name]
            task = Task(queue="fetch", states=(listed_state(version, path=path),))
            events = run_task(task, context)
            if [event.stage for event in events] == ["fetch", "inspect"]:
                digests.add(events[0].data["sha256"])
            assert not list(Path(context._scratch.name).iterdir())
    assert set(fetch_counts.values()) == {1}
    assert len(digests) >= 6
    assert {path.stem for path in root.glob("raw/*/*.glb")} == (digests if keep_raw else set())


def test_without_raw_files_a_file_is_fetched_again_only_for_blender(
    demo_source: Path, tmp_path: Path, fetch_counts: Counter[str]
):
    words = ["build", "--source", demo_source, "--captions", demo_source / CAPTIONS_FILE, *QUICK]
    words += ["--root", tmp_path, "--rig", "one2345", "--keep-raw", "false", "--limit", "5"]
    assert run_lrm(*words).code == 0
    events_per_stage = Counter(event["stage"] for event in events_of(tmp_path))
    assert events_per_stage["render"] >= 1
    assert set(fetch_counts.values()) == {1, 2}
    assert sum(fetch_counts.values()) == events_per_stage["fetch"] + events_per_stage["measure"]
