"""A dataset whose root is a bucket, behind a store that is busy and a network that breaks.

The server speaks real S3 on loopback; the proxy before it answers 503 SlowDown, cuts answers in the
middle, and loses the answers to writes that were done.
"""

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import boto3
import fsspec
import pytest

from core.errors import BadInput
from core.lock import exclusive
from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from pipelines.cli import main
from pipelines.demo.demo_mirror import CAPTIONS_FILE
from tests.support.datasets import QUICK, Built, ends, samples
from tests.support.flaky_store import faults, flaky_store
from tests.support.lrm import Answer, run_lrm
from train.monitoring.metrics_log import read_metrics

SECRET = "very-secret-access-key"
TRAIN = (
    "--batch-size 2 --preset tiny --loss.lpips 0 --data.num-inputs 2 --data.num-targets 1 "
    "--data.patch-size 16 --data.target-size-min 16 --data.target-size-max 16 --preview-every 0 "
    "--validate-every 0 --checkpoint-every 1 --optimizer.schedule-steps 9 --address none"
).split()


@dataclass(frozen=True)
class Stored:
    """A dataset in a bucket, with all that was said while it was built and used."""

    root: str
    words: list[str]
    server: str
    said: list[str]

    def run(self, *words):
        """In a process of its own."""
        return self._heard(run_lrm(*words))

    def call(self, *words):
        """In this process, which saves seconds."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main([*map(str, words)])
        return self._heard(Answer(code, out.getvalue(), err.getvalue()))

    def _heard(self, answer):
        self.said.extend([answer.out, answer.err])
        return answer


@pytest.fixture(scope="module")
def stored(demo_source):
    words = ["--source", demo_source, "--captions", demo_source / CAPTIONS_FILE, *QUICK]
    with flaky_store() as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        boto3.resource("s3").create_bucket(Bucket="lake")
        root = "s3://lake/data"
        dataset = Stored(root, [*map(str, words), "--limit", "8"], address, [])
        answer = dataset.run("build", *dataset.words, "--root", root)
        assert answer.code == 0, answer.err
        yield dataset
        fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_the_store_was_as_bad_as_it_says(stored):
    done = faults(stored.server)
    assert done["slow"] >= 10
    assert done["cut"] >= 5
    assert done["lost"] >= 1


def test_it_holds_what_a_folder_would(stored, built: Built):
    """Byte for byte, and every event once."""
    there, here = samples(Storage(stored.root)), samples(Storage(str(built.root)))
    assert len(there) >= 3
    assert there == {key: here[key] for key in there}
    ids = {row[0] for row in ends(Storage(stored.root))}
    expected = [row for row in ends(Storage(str(built.root))) if row[0] in ids]
    assert ends(Storage(stored.root)) == expected


def test_the_same_command_again_does_nothing(stored):
    plan = stored.call("plan", *stored.words, "--root", stored.root, "--json").json()
    assert plan["work"] == {}
    status = stored.call("status", "--root", stored.root, "--json").json()
    assert (status["listed"], status["pending"]) == (8, 0)
    assert status["kept"] == len(samples(Storage(stored.root)))


def test_every_command_takes_it(stored, tmp_path):
    root = ["--root", stored.root]
    assert stored.call("verify", *root, "--json").json()["findings"] == []
    kept = sorted(samples(Storage(stored.root)))[0].replace("objaverse-", "objaverse:")
    sheet = tmp_path / "sheet.png"
    assert stored.call("inspect", *root, kept, "--sheet", sheet, "--json").json()["state"] == "kept"
    assert sheet.stat().st_size > 1000
    report = stored.call("report", *root, "--out", tmp_path / "report", "--thumbnails", 0)
    assert report.code == 0, report.err
    assert "several" in (tmp_path / "report" / "report.html").read_text()
    snapshot = stored.call("snapshot", *root, "--validation-share", 0, "--json").json()["snapshot"]
    pinned = [*root, "--snapshot", snapshot]
    words = [*pinned, "--layout", "instantmesh", "--out", tmp_path / "export", "--json"]
    assert stored.call("export", *words).json()["exported"] >= 3
    removed = stored.call("remove", *root, kept, "--reason", "asked", "--json")
    assert removed.code == 0, removed.err
    assert stored.call("status", *root, "--json").json()["kept"] == 2
    assert stored.call("remove", *root, kept, "--undo", "--json").code == 0
    assert stored.call("compact", *root, "--dry-run", "--json").code == 0


def test_training_reads_from_it_and_keeps_its_checkpoints_there(stored, tmp_path):
    run, out = tmp_path / "run", tmp_path / "model.safetensors"
    listed = stored.call(
        "snapshot", "--root", stored.root, "--validation-share", 0, "--json"
    ).json()
    words = ["--root", stored.root, "--snapshot", listed["snapshot"], "--out", run, *TRAIN]
    words += ["--checkpoints", "s3://lake/run"]
    # tests/train has a reader's faults.
    faults(stored.server, on=False)
    for steps in (2, 3):
        answer = stored.run("train", "nerf", *words, "--steps", steps)
        assert answer.code == 0, answer.err
    faults(stored.server, on=True)
    assert "went on after step 2" in answer.out
    assert [row["step"] for row in read_metrics(run)] == [1, 2, 3]
    # Nothing is left of what was on its way.
    assert not list(run.glob("checkpoints*/step-*"))
    found = stored.call("train", "--status", run, "--json").json()["checkpoints"]
    assert [(row["step"], row["whole"]) for row in found] == [(3, True), (2, True), (1, True)]
    assert stored.call("weights", "--run", run, "--out", out, "--json").json()["step"] == 3


def test_of_two_writers_one_gets_the_lock(stored):
    root = Storage("s3://lake/locked")
    with (
        exclusive(root, "first"),
        pytest.raises(BadInput, match="`first`"),
        exclusive(root, "second"),
    ):
        pass
    with exclusive(root, "third"):
        pass


def test_two_committers_lose_nothing(stored):
    """Delta Lake's own conditional puts, on a store that is asked by both at once."""
    root = Storage("s3://lake/twice")
    writers = [Catalog(root), Catalog(root)]
    for batch in range(1, 6):
        for number, writer in enumerate(writers):
            event = Event(asset_id=f"files:{number}-{batch}", stage="list")
            writer.commit([event], f"run {number}", batch)
            # An answer that was lost, and the same once more.
            writer.commit([event], f"run {number}", batch)
    found = [row[0] for row in ends(root)]
    assert len(found) == len(set(found)) == 10


def test_more_files_than_one_answer_lists(stored):
    """S3 gives a thousand names at a time."""
    bucket = boto3.resource("s3").Bucket("lake")
    faults(stored.server, on=False)
    with ThreadPoolExecutor(8) as threads:
        keys = [f"many/x/{number:05d}" for number in range(1050)]
        list(threads.map(lambda key: bucket.put_object(Key=key, Body=b""), keys))
    faults(stored.server, on=True)
    root = Storage("s3://lake/many")
    assert len(root.list_files("x")) == len(root.find_files("x")) == 1050


def test_a_store_that_is_not_there_is_one_line(stored):
    answer = run_lrm("status", "--root", stored.root, AWS_ENDPOINT_URL="http://127.0.0.1:1")
    assert answer.code == 1
    (line,) = answer.err.strip().splitlines()
    assert "Could not connect" in line


def test_no_credential_was_written_anywhere(stored):
    """Last: in nothing that was said, and in no object of the bucket."""
    assert len(stored.said) > 10
    faults(stored.server, on=False)
    assert not any(SECRET in text for text in stored.said)
    root = Storage("s3://lake")
    names = list(root.find_files(""))
    assert len(names) > 1000
    for name in names:
        if not name.startswith("many/"):
            assert SECRET.encode() not in root.read(name), name
