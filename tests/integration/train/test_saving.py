"""Checkpoints of real DeepSpeed runs: the same and other numbers of workers, full disks, stores."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from core.storage import Storage
from tests.support.paths import REPOSITORY
from tests.support.tiny import BUILT, make_config, run_group
from train.checkpoints.checkpoint import find_checkpoint, latest_checkpoint
from train.checkpoints.rank_files import is_needed, writer_of
from train.checkpoints.uploads import Upload
from train.monitoring.metrics_log import read_metrics

STAGES = (0, 1, 2, 3)


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(out)]


def batches(out: Path) -> list[str]:
    return [row["batch"] for row in read_metrics(out)]


@pytest.fixture(scope="module")
def runs(ranks, sphere_dataset, tmp_path_factory) -> Path:
    """Per ZeRO stage: six steps in one go (`full`), and four (`cut`), on two workers."""
    folder = tmp_path_factory.mktemp("runs")
    full = [make_config(sphere_dataset, folder / f"full{z}", 6, zero_stage=z) for z in STAGES]
    cut = [make_config(sphere_dataset, folder / f"cut{z}", 4, zero_stage=z) for z in STAGES]
    bf16 = {"zero_stage": 1, "precision": "bf16"}
    full.append(make_config(sphere_dataset, folder / "fullb", 6, **bf16))
    cut.append(make_config(sphere_dataset, folder / "cutb", 4, **bf16))
    assert run_group(ranks, 2, [*full, *cut]) == [""] * 10
    for kind in "0123b":
        found = losses(folder / f"full{kind}")
        assert found[-1] < 0.9 * found[0]
    return folder


def go_on(ranks, dataset, runs: Path, copies: Path, world: int, kinds="0123", **more) -> None:
    configs = []
    for kind in kinds:
        shutil.copytree(runs / f"cut{kind}", copies / kind)
        stage = {"zero_stage": 1, "precision": "bf16"} if kind == "b" else {"zero_stage": int(kind)}
        configs.append(make_config(dataset, copies / kind, 6, **stage, **more))
    assert run_group(ranks, world, configs) == [""] * len(configs)


def test_the_same_number_of_workers_repeats_every_bit(ranks, sphere_dataset, runs, tmp_path):
    go_on(ranks, sphere_dataset, runs, tmp_path, 2, kinds="0123b")
    for kind in "0123b":
        assert losses(tmp_path / kind) == losses(runs / f"full{kind}")
        assert batches(tmp_path / kind) == batches(runs / f"full{kind}")
    for kind in "012b":
        ours, theirs = (find_checkpoint(path) for path in (tmp_path / kind, runs / f"full{kind}"))
        expected = theirs.weights()
        assert all(torch.equal(value, expected[name]) for name, value in ours.weights().items())


@pytest.mark.parametrize("world", [1, 3])
def test_another_number_of_workers_goes_on(ranks, sphere_dataset, runs, tmp_path, world):
    """By DeepSpeed's universal form, which the run itself makes and removes."""
    go_on(ranks, sphere_dataset, runs, tmp_path, world)
    for kind in "0123":
        assert losses(tmp_path / kind) == pytest.approx(losses(runs / f"full{kind}"), abs=1e-5)
        assert batches(tmp_path / kind) == batches(runs / f"full{kind}")
        left = {path.name for path in (tmp_path / kind / "checkpoints").iterdir()}
        assert {name for name in left if "step" not in name} <= {
            "zero_to_fp32.py",
            "zero_to_torch.py",
        }
        assert "universal" not in " ".join(left)
        assert find_checkpoint(tmp_path / kind).manifest.world == world
    for kind in "012":
        ours, theirs = (find_checkpoint(path) for path in (tmp_path / kind, runs / f"full{kind}"))
        for name, value in ours.weights().items():
            torch.testing.assert_close(value, theirs.weights()[name], atol=1e-5, rtol=0)


def test_the_optimizer_may_live_in_the_machines_memory(ranks, sphere_dataset, runs, tmp_path):
    stages = (2, 3)
    configs = [
        make_config(sphere_dataset, tmp_path / f"{z}", 6, zero_stage=z, offload_optimizer=True)
        for z in stages
    ]
    assert run_group(ranks, 2, configs) == ["", ""]
    for z in stages:
        assert losses(tmp_path / f"{z}") == losses(runs / f"full{z}")


def test_the_manifest_tells_where_it_comes_from(runs, sphere_dataset):
    found = json.loads((runs / "full2/checkpoints/step-00000006/manifest.json").read_text())
    assert (found["step"], found["world"], found["zero_stage"]) == (6, 2, 2)
    assert found["snapshot"] == sphere_dataset[1]
    assert found["extra"]["position"] == 36
    assert found["versions"]["deepspeed"] != "not installed"
    assert {"random-00000.pt", "random-00001.pt"} < set(found["files"])


@pytest.mark.parametrize("kind", "0123b")
def test_every_rank_writes_and_reads_the_files_that_bear_its_number(runs, kind):
    """The table in train/checkpoints/rank_files.py, by the files of two ranks."""
    names = set(find_checkpoint(runs / f"full{kind}").manifest.files)
    of_rank = [{name for name in names if writer_of(name) == rank} for rank in range(2)]
    of_all = {"mp_rank_00_model_states.pt"} if kind != "3" else set()
    assert of_rank[0] | of_rank[1] == names
    for rank, own in enumerate(of_rank):
        expected = {f"random-{rank:05d}.pt"}
        if kind == "3":
            expected |= {f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt"}
        if kind != "0":
            optimizer = f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
            expected |= {f"bf16_{optimizer}" if kind == "b" else optimizer}
        assert own - of_all == expected
        assert {name for name in names if is_needed(name, rank)} == expected | of_all


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(ranks, sphere_dataset, tmp_path):
    """The write at step 4 fails on rank 1 alone; the one of step 6 succeeds."""
    disk = {"full_disk_at": [3 * 6 + 3], "free_disk_at": [5 * 6 + 3]}
    config = make_config(sphere_dataset, tmp_path / "run", 6, keep_checkpoints=9, **disk)
    assert run_group(ranks, 2, [config]) == [""]
    there = sorted(path.name for path in (tmp_path / "run/checkpoints").glob("step-*"))
    assert there == ["step-00000002", "step-00000006"]
    assert len(losses(tmp_path / "run")) == 6


def test_a_disk_that_stays_full_ends_the_run_with_its_last_checkpoint(
    ranks, sphere_dataset, tmp_path
):
    config = make_config(
        sphere_dataset, tmp_path / "run", 8, full_disk_at=[3 * 6], max_failed_saves=2
    )
    (problem,) = run_group(ranks, 1, [config])
    assert problem.startswith("FinalFailure: step 6: 2 checkpoints in a row could not be written")
    assert find_checkpoint(tmp_path / "run").step == 2


def test_a_damaged_checkpoint_is_not_loaded_over_the_first_weights(ranks, sphere_dataset, tmp_path):
    """A run whose only checkpoint is damaged starts as it did first, from what it names."""
    config = make_config(sphere_dataset, tmp_path / "run", 2)
    assert run_group(ranks, 1, [config, config.model_copy(update={"steps": 3})]) == ["", ""]
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000002")
    (path,) = (tmp_path / "run/checkpoints/step-00000003").glob("*optim_states.pt")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert run_group(ranks, 1, [config.model_copy(update={"steps": 4})]) == [""]
    assert (tmp_path / "run" / BUILT).read_text().splitlines() == [
        "fresh",
        "to be loaded over",
        "fresh",
    ]
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1, 2, 3, 4]


def test_a_store_that_is_gone_ends_the_run_after_so_many_checkpoints(
    ranks, sphere_dataset, bucket, tmp_path
):
    """Uploads fail behind the steps: each is counted when the next one is due."""
    keep = {"checkpoints": f"s3://{bucket.name}/run", "max_failed_saves": 2, "item_seconds": 0.05}
    config = make_config(sphere_dataset, tmp_path / "run", 400, **keep)

    def lose() -> None:
        deadline = time.monotonic() + 120
        manifest = bucket.objects.filter(Prefix="run/step-00000002/manifest.json")
        while not list(manifest) and time.monotonic() < deadline:
            time.sleep(0.05)
        bucket.objects.all().delete()
        bucket.delete()

    losing = threading.Thread(target=lose, daemon=True)
    losing.start()
    (problem,) = run_group(ranks, 2, [config])
    losing.join()
    bucket.create()
    assert problem.startswith("FinalFailure: step ")
    assert "2 checkpoints in a row could not be written: s3://" in problem
    assert "cannot upload" in problem


def test_an_upload_that_will_never_be_whole_can_be_given_up(bucket, tmp_path):
    """What rank 0 does when another rank's files do not come: no manifest, and no hour's wait."""
    (tmp_path / "own").mkdir()
    own = tmp_path / "own/random-00000.pt"
    own.write_bytes(b"abc")
    finished = []
    upload = Upload(
        Storage(f"s3://{bucket.name}/run"),
        "step-00000002",
        {own.name: own},
        lambda: finished.append(True),
        {own.name: 3, "random-00001.pt": 3},
    )
    while not list(bucket.objects.all()):
        time.sleep(0.05)
    assert not upload.is_finished
    upload.cancel()
    deadline = time.monotonic() + 20
    while not upload.is_finished:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (upload.problem, finished) == ("", [])


def test_a_store_without_an_answer_is_a_failed_upload(tmp_path):
    """In a process of its own: what its client raises is unknown until the client is loaded."""
    code = (
        "import sys, train.checkpoints.uploads as uploads; from core.storage import Storage\n"
        "from pathlib import Path; from core.retry import Backoff; "
        "assert hasattr(uploads, '_BACKOFF'); uploads._BACKOFF = Backoff(first_seconds=0)\n"
        "file = Path(sys.argv[1]); file.write_bytes(b'abc')\n"
        "upload = uploads.Upload(Storage('s3://bucket/run'), 'step', {'f': file}, None, {})\n"
        "upload._thread.join(); print(upload.problem)"
    )
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | nowhere | keys, capture_output=True, text=True
    )
    assert "s3://bucket/run/step: cannot upload: Could not connect" in done.stdout
    assert done.stderr.count("checkpoint upload: ") == 5


def test_checkpoints_lie_in_an_object_store(ranks, sphere_dataset, bucket, tmp_path):
    """Uploaded behind the steps, and fetched by another run's ranks."""
    place = f"s3://{bucket.name}/run/checkpoints"
    keep = {"checkpoints": place, "keep_checkpoints": 1, "keep_every": 4, "checkpoint_every": 1}
    config = make_config(sphere_dataset, tmp_path / "run", 6, **keep)
    assert run_group(ranks, 2, [config]) == [""]
    found = latest_checkpoint(Storage(place))
    assert found is not None
    assert (found.step, found.is_complete()) == (6, True)
    steps = {name.split("/")[0] for name in Storage(place).find_files("")}
    assert steps == {"step-00000004", "step-00000006"}
    assert list((tmp_path / "run/checkpoints-in-transit").rglob("*.pt")) == []
    longer = config.model_copy(update={"steps": 7})
    reference = make_config(sphere_dataset, tmp_path / "reference", 7)
    assert run_group(ranks, 2, [longer, reference]) == ["", ""]
    assert losses(tmp_path / "run") == losses(tmp_path / "reference")
    # One byte of an object is another: the hash tells, and the next start takes the one before.
    newest = latest_checkpoint(Storage(place))
    assert newest is not None
    victim = next(name for name in newest.manifest.files if "optim" in name)
    data = bytearray(Storage(place).read(f"{newest.name}/{victim}"))
    data[len(data) // 2] ^= 1
    Storage(place).write(f"{newest.name}/{victim}", bytes(data))
    again = config.model_copy(update={"steps": 8})
    problems = run_group(ranks, 2, [again, again])
    assert "is missing or damaged" in problems[0]
    assert problems[1] == ""
    assert losses(tmp_path / "run")[:7] == losses(tmp_path / "reference")
