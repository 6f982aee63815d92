"""A dataset in a bucket, on an object store and a network with faults.

The server speaks S3 on loopback. The proxy in front of it answers 503 SlowDown, cuts responses off,
and drops the responses to writes that succeeded.
"""

import pytest

from core.errors import BadInput
from core.lock import exclusive_lock
from core.storage import Storage
from pipelines.demo.demo_mirror import CAPTIONS_FILE
from tests.support.datasets import QUICK, BuiltDataset, event_outcomes, samples
from tests.support.flaky_bucket import flaky_bucket
from tests.support.flaky_store import fill_folder, switch_faults
from tests.support.lrm import run_lrm


@pytest.fixture(scope="module")
def words(demo_source) -> list[str]:
    captions = demo_source / CAPTIONS_FILE
    arguments = ["--source", demo_source, "--captions", captions, *QUICK, "--limit", "8"]
    # Every commit costs every later command requests; one that waits longer also has more events.
    arguments += ["--execution.commit-seconds", "30"]
    return [str(word) for word in arguments]


@pytest.fixture(scope="module")
def stored(words):
    with flaky_bucket() as dataset:
        answer = dataset.run("build", *words, "--root", dataset.root)
        assert answer.code == 0, answer.err
        yield dataset


def test_a_bucket_holds_the_same_samples_and_events_as_a_folder(
    stored, built_dataset: BuiltDataset
):
    """The samples are the same bytes, and every event is stored once."""
    stored_samples, local_samples = (
        samples(Storage(stored.root)),
        samples(Storage(str(built_dataset.root))),
    )
    assert len(stored_samples) >= 3
    assert stored_samples == {key: local_samples[key] for key in stored_samples}
    ids = {row[0] for row in event_outcomes(Storage(stored.root))}
    expected = [row for row in event_outcomes(Storage(str(built_dataset.root))) if row[0] in ids]
    assert event_outcomes(Storage(stored.root)) == expected


def test_the_same_command_again_does_nothing(stored, words):
    plan = stored.run("plan", *words, "--root", stored.root, "--json").json()
    assert plan["work"] == {}
    before = switch_faults(stored.server, on=False)
    status = stored.run("status", "--root", stored.root, "--json").json()
    after = switch_faults(stored.server)
    assert (status["listed"], status["pending"]) == (8, 0)
    assert after["GET"] - before["GET"] <= 60, "no file is requested again and again"
    assert status["kept"] == len(samples(Storage(stored.root)))


def test_every_command_works_on_a_bucket_and_writes_no_credential(stored, tmp_path):
    root = ["--root", stored.root]
    assert stored.run("verify", *root, "--json").json()["findings"] == []
    kept = sorted(samples(Storage(stored.root)))[0].replace("objaverse-", "objaverse:")
    sheet = tmp_path / "sheet.png"
    assert stored.run("inspect", *root, kept, "--sheet", sheet, "--json").json()["state"] == "kept"
    assert sheet.stat().st_size > 1000
    report = stored.run("report", *root, "--out", tmp_path / "report", "--thumbnails", 0)
    assert report.code == 0, report.err
    assert "several" in (tmp_path / "report" / "report.html").read_text()
    snapshot = stored.run("snapshot", *root, "--validation-share", 0, "--json").json()["snapshot"]
    pinned = [*root, "--snapshot", snapshot]
    words = [*pinned, "--layout", "instantmesh", "--out", tmp_path / "export"]
    words += ["--workers", 1, "--json"]
    assert stored.run("export", *words).json()["exported"] >= 3
    removed = stored.run("remove", *root, kept, "--reason", "requested", "--json")
    assert removed.code == 0, removed.err
    assert stored.run("status", *root, "--json").json()["kept"] == 2
    assert stored.run("remove", *root, kept, "--undo", "--json").code == 0
    assert stored.run("compact", *root, "--dry-run", "--json").code == 0
    assert len(stored.printed) > 10
    folders = ("catalog", "shards", "snapshots")
    stored.assert_no_credential_was_written(*(f"data/{folder}" for folder in folders))


def test_the_store_had_every_kind_of_fault(stored):
    """The commands before this test were disturbed, in their reads as in their writes."""
    counts = switch_faults(stored.server)
    assert counts["slow"] >= 20
    assert counts["cut"] >= 6
    assert counts["lost"] >= 3


def test_only_one_of_two_writers_gets_the_lock(stored):
    root = Storage("s3://lake/locked")
    with (
        exclusive_lock(root, "first"),
        pytest.raises(BadInput, match="`first`"),
        exclusive_lock(root, "second"),
    ):
        pass
    with exclusive_lock(root, "third"):
        pass


def test_listings_of_several_pages_are_complete(stored):
    """S3 returns at most 1000 names per response."""
    fill_folder(stored.server, "lake", "many/x", 1050)
    root = Storage("s3://lake/many")
    assert len(root.list_files("x")) == len(root.find_files("x")) == 1050


def test_an_unreachable_store_gives_one_line_of_error(stored):
    answer = run_lrm("status", "--root", stored.root, AWS_ENDPOINT_URL="http://127.0.0.1:1")
    assert answer.code == 1
    (line,) = answer.err.strip().splitlines()
    assert "Could not connect" in line
