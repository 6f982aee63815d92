"""A run stores the id of its snapshot, and a start that resumes reads the same samples."""

from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import BadInput
from core.storage import Storage
from dataset.snapshots.deletion import delete_snapshots
from dataset.snapshots.snapshot import write_snapshot
from tests.support.checkpoints import settings, write
from tests.support.small_shards import small_sample
from tests.support.tiny_recipe import TinyConfig
from train.checkpoints.pinned_snapshot import pin_snapshot
from train.checkpoints.resuming import find_resumable

SAMPLE = small_sample(1)


@pytest.fixture
def root(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "data"))


def create(root: Storage, caption: str, name: str | None = None) -> str:
    return write_snapshot(root, [replace(SAMPLE, caption=caption)], None, name=name)["snapshot"]


def pinned(root: Storage, out: Path, text: str) -> TinyConfig:
    return pin_snapshot(settings(out, root=root.uri, snapshot=text))


def test_the_settings_of_a_run_have_the_id(root: Storage, tmp_path: Path):
    first, second = create(root, "a", name="v1"), create(root, "b")
    texts = {first: first, "v1": first, first[:6]: first, "latest": second}
    for text, expected in texts.items():
        assert pinned(root, tmp_path / "run", text).snapshot == expected
    with pytest.raises(BadInput, match="no snapshot 'v2'"):
        pinned(root, tmp_path / "run", "v2")


def test_latest_means_the_same_snapshot_when_a_run_resumes(root: Storage, tmp_path: Path):
    out, first = tmp_path / "run", create(root, "a")
    write(out, 5, root=root.uri, snapshot=first)
    second = create(root, "b")
    resumed = pinned(root, out, "latest")
    assert resumed.snapshot == first
    assert find_resumable(resumed) is not None
    assert pinned(root, tmp_path / "other", "latest").snapshot == second
    accepting = settings(out, root=root.uri, snapshot="latest", accept_changes=["snapshot"])
    assert pin_snapshot(accepting).snapshot == second


def test_a_name_that_was_given_to_other_samples_does_not_resume(root: Storage, tmp_path: Path):
    out, first = tmp_path / "run", create(root, "a", name="v1")
    write(out, 5, root=root.uri, snapshot=first)
    assert find_resumable(pinned(root, out, "v1")) is not None
    delete_snapshots(root, ["v1"], force=True)
    second = create(root, "b", name="v1")
    with pytest.raises(BadInput, match=rf"snapshot \('{first}' -> '{second}'\)"):
        find_resumable(pinned(root, out, "v1"))
