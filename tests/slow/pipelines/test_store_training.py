"""Training on a dataset in a bucket, with its checkpoints in the bucket as well."""

import pytest

from tests.support.flaky_bucket import flaky_bucket
from tests.support.flaky_store import switch_faults
from tests.support.lrm import spawn_lrm
from tests.support.sphere_datasets import write_sphere_dataset
from train.monitoring.metrics_log import read_metrics

TRAIN = (
    "--batch-size 2 --preset tiny --loss.lpips 0 --data.num-inputs 2 --data.num-targets 1 "
    "--data.patch-size 16 --data.target-size-min 16 --data.target-size-max 16 --preview-every 0 "
    "--validate-every 0 --checkpoint-every 1 --optimizer.schedule-steps 9 --address none"
).split()


@pytest.fixture
def stored():
    with flaky_bucket() as dataset:
        yield dataset


def test_training_reads_samples_and_writes_checkpoints_in_a_bucket(stored, tmp_path):
    run, out = tmp_path / "run", tmp_path / "model.safetensors"
    _, snapshot = write_sphere_dataset(stored.root)
    words = ["--root", stored.root, "--snapshot", snapshot, "--out", run, *TRAIN]
    words += ["--checkpoints", "s3://lake/run"]
    # tests/integration/train tests faults while reading.
    switch_faults(stored.server, on=False)
    for steps in (2, 3):
        # A new process each, because DeepSpeed can be initialised only once in a process.
        answer = stored.run("train", "nerf", *words, "--steps", steps, "--json", lrm=spawn_lrm)
        assert answer.code == 0, answer.err
    switch_faults(stored.server, on=True)
    # The output is JSON only, although DeepSpeed logs to standard output.
    assert answer.json()["first_step"] == 2
    assert [row["step"] for row in read_metrics(run)] == [1, 2, 3]
    # No local copy of an uploaded checkpoint is left.
    assert not list(run.glob("checkpoints*/step-*"))
    checkpoints = stored.run("train", "--status", run, "--json").json()["checkpoints"]
    assert [(row["step"], row["whole"]) for row in checkpoints] == [(3, True), (2, True), (1, True)]
    assert stored.run("weights", "--run", run, "--out", out, "--json").json()["step"] == 3
    snapshots = stored.run("snapshot", "--root", stored.root, "--list")
    assert snapshot in snapshots.out
    stored.assert_no_credential_was_written("data", "run")
