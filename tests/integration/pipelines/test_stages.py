"""How often an object's file is brought, and that none is left."""

from collections import Counter
from pathlib import Path

import pytest

from pipelines.building.build_config import BuildConfig
from pipelines.building.stages.worker_context import WorkerContext
from pipelines.building.tasks import Task, run_task
from pipelines.demo.demo_mirror import CAPTIONS_FILE
from pipelines.sources.mirror import Mirror
from tests.support.datasets import QUICK, events_of
from tests.support.listings import listed
from tests.support.lrm import run_lrm


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was asked for at a mirror."""
    counts: Counter[str] = Counter()
    fetch = Mirror.fetch

    def counted(self, path, version, target):
        counts[path] += 1
        return fetch(self, path, version, target)

    monkeypatch.setattr(Mirror, "fetch", counted)
    return counts


@pytest.mark.parametrize("keep_raw", [False, True])
def test_one_transfer_is_enough_for_a_fetch_and_its_inspection(
    demo_source: Path, tmp_path: Path, fetched: Counter[str], keep_raw: bool
):
    source, root = Mirror(str(demo_source)), tmp_path / "root"
    config = BuildConfig(source=source.name, root=str(root), keep_raw=keep_raw)
    digests = set()
    with WorkerContext(config, source) as context:
        for file in sorted(demo_source.glob("glbs/*/*.glb")):
            path = str(file.relative_to(demo_source))
            version = source.glb_versions(file.parent.name)[file.name]
            task = Task(queue="fetch", states=(listed(version, path=path),))
            events = run_task(task, context)
            if [event.stage for event in events] == ["fetch", "inspect"]:
                digests.add(events[0].data["sha256"])
            assert not list(Path(context._scratch.name).iterdir())
    assert set(fetched.values()) == {1}
    assert len(digests) >= 6
    assert {path.stem for path in root.glob("raw/*/*.glb")} == (digests if keep_raw else set())


def test_a_build_that_keeps_no_file_brings_it_once_before_and_once_for_blender(
    demo_source: Path, tmp_path: Path, fetched: Counter[str]
):
    words = ["build", "--source", demo_source, "--captions", demo_source / CAPTIONS_FILE, *QUICK]
    words += ["--root", tmp_path, "--rig", "one2345", "--keep-raw", "false", "--limit", "5"]
    assert run_lrm(*words).code == 0
    ended = Counter(event["stage"] for event in events_of(tmp_path))
    assert ended["render"] >= 1
    assert set(fetched.values()) == {1, 2}
    assert sum(fetched.values()) == ended["fetch"] + ended["measure"]
