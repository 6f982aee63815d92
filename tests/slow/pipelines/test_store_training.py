"""Training on a dataset in a bucket, with its checkpoints there as well."""

import pytest

from tests.support.flaky_store import faults
from tests.support.lrm import spawn_lrm
from tests.support.spheres import write_spheres
from tests.support.stored import flaky_bucket
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


def test_training_reads_from_it_and_keeps_its_checkpoints_there(stored, tmp_path):
    run, out = tmp_path / "run", tmp_path / "model.safetensors"
    _, snapshot = write_spheres(stored.root)
    words = ["--root", stored.root, "--snapshot", snapshot, "--out", run, *TRAIN]
    words += ["--checkpoints", "s3://lake/run"]
    # tests/integration/train has a reader's faults.
    faults(stored.server, on=False)
    for steps in (2, 3):
        # DeepSpeed starts once in a process.
        answer = stored.run("train", "nerf", *words, "--steps", steps, "--json", lrm=spawn_lrm)
        assert answer.code == 0, answer.err
    faults(stored.server, on=True)
    # JSON and nothing else: DeepSpeed logs to standard output by itself.
    assert answer.json()["first_step"] == 2
    assert [row["step"] for row in read_metrics(run)] == [1, 2, 3]
    # Nothing is left of what was on its way.
    assert not list(run.glob("checkpoints*/step-*"))
    found = stored.run("train", "--status", run, "--json").json()["checkpoints"]
    assert [(row["step"], row["whole"]) for row in found] == [(3, True), (2, True), (1, True)]
    assert stored.run("weights", "--run", run, "--out", out, "--json").json()["step"] == 3
    listed = stored.run("snapshot", "--root", stored.root, "--list")
    assert snapshot in listed.out
    stored.assert_no_credential_was_written("data", "run")
