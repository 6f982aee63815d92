"""Checkpoints of real DeepSpeed runs: world sizes, full disks and object stores."""

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
from tests.support.tiny_recipe import START_LOG, make_config, run_group
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
    """Train six steps (`full`) and four steps (`cut`) with each ZeRO stage, on two ranks."""
    folder = tmp_path_factory.mktemp("runs")
    full = [make_config(sphere_dataset, folder / f"full{z}", 6, zero_stage=z) for z in STAGES]
    cut = [make_config(sphere_dataset, folder / f"cut{z}", 4, zero_stage=z) for z in STAGES]
    bf16 = {"zero_stage": 1, "precision": "bf16"}
    full.append(make_config(sphere_dataset, folder / "fullb", 6, **bf16))
    cut.append(make_config(sphere_dataset, folder / "cutb", 4, **bf16))
    assert run_group(ranks, 2, [*full, *cut]) == [""] * 10
    for kind in "0123b":
        values = losses(folder / f"full{kind}")
        assert values[-1] < 0.9 * values[0]
    return folder


def resume_cut_runs(
    ranks, dataset, runs: Path, copies: Path, world_size: int, kinds="0123", **settings
) -> None:
    """Copy the runs of four steps and train them to step 6 with `world_size` ranks."""
    configs = []
    for kind in kinds:
        shutil.copytree(runs / f"cut{kind}", copies / kind)
        stage = {"zero_stage": 1, "precision": "bf16"} if kind == "b" else {"zero_stage": int(kind)}
        configs.append(make_config(dataset, copies / kind, 6, **stage, **settings))
    assert run_group(ranks, world_size, configs) == [""] * len(configs)


def test_a_run_resumed_with_the_same_world_size_is_bit_identical(
    ranks, sphere_dataset, runs, tmp_path
):
    tmp_path /= "[1]*"  # DeepSpeed would take the name for a pattern
    resume_cut_runs(ranks, sphere_dataset, runs, tmp_path, 2, kinds="0123b")
    for kind in "0123b":
        assert losses(tmp_path / kind) == losses(runs / f"full{kind}")
        assert batches(tmp_path / kind) == batches(runs / f"full{kind}")
    for kind in "012b":
        resumed, full = (find_checkpoint(path) for path in (tmp_path / kind, runs / f"full{kind}"))
        expected = full.weights()
        assert all(torch.equal(value, expected[name]) for name, value in resumed.weights().items())


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_run_can_be_resumed_with_another_world_size(
    ranks, sphere_dataset, runs, tmp_path, world_size
):
    """The run converts to DeepSpeed's universal checkpoint, and deletes it after loading."""
    tmp_path /= "[1]*"  # DeepSpeed's converter would take the name for a pattern
    resume_cut_runs(ranks, sphere_dataset, runs, tmp_path, world_size)
    for kind in "0123":
        assert losses(tmp_path / kind) == pytest.approx(losses(runs / f"full{kind}"), abs=1e-5)
        assert batches(tmp_path / kind) == batches(runs / f"full{kind}")
        names = {path.name for path in (tmp_path / kind / "checkpoints").iterdir()}
        assert {name for name in names if "step" not in name} <= {
            "zero_to_fp32.py",
            "zero_to_torch.py",
        }
        assert "universal" not in " ".join(names)
        assert find_checkpoint(tmp_path / kind).manifest.world_size == world_size
    for kind in "012":
        resumed, full = (find_checkpoint(path) for path in (tmp_path / kind, runs / f"full{kind}"))
        for name, value in resumed.weights().items():
            torch.testing.assert_close(value, full.weights()[name], atol=1e-5, rtol=0)


def test_an_offloaded_optimizer_gives_the_same_losses(ranks, sphere_dataset, runs, tmp_path):
    stages = (2, 3)
    configs = [
        make_config(sphere_dataset, tmp_path / f"{z}", 6, zero_stage=z, offload_optimizer=True)
        for z in stages
    ]
    assert run_group(ranks, 2, configs) == ["", ""]
    for z in stages:
        assert losses(tmp_path / f"{z}") == losses(runs / f"full{z}")


def test_the_manifest_describes_its_run(runs, sphere_dataset):
    manifest = json.loads((runs / "full2/checkpoints/step-00000006/manifest.json").read_text())
    assert (manifest["step"], manifest["world"], manifest["zero_stage"]) == (6, 2, 2)
    assert manifest["snapshot"] == sphere_dataset[1]
    assert manifest["extra"]["position"] == 36
    assert manifest["versions"]["deepspeed"] != "not installed"
    assert {"random-00000.pt", "random-00001.pt"} < set(manifest["files"])


@pytest.mark.parametrize("kind", "0123b")
def test_every_rank_writes_and_reads_the_files_with_its_number(runs, kind):
    """The table in train/checkpoints/rank_files.py holds for the files of two ranks."""
    names = set(find_checkpoint(runs / f"full{kind}").manifest.files)
    of_rank = [{name for name in names if writer_of(name) == rank} for rank in range(2)]
    of_all_ranks = {"mp_rank_00_model_states.pt"} if kind != "3" else set()
    assert of_rank[0] | of_rank[1] == names
    for rank, rank_names in enumerate(of_rank):
        expected = {f"random-{rank:05d}.pt"}
        if kind == "3":
            expected |= {f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt"}
        if kind != "0":
            optimizer = f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
            expected |= {f"bf16_{optimizer}" if kind == "b" else optimizer}
        assert rank_names - of_all_ranks == expected
        assert {name for name in names if is_needed(name, rank)} == expected | of_all_ranks


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(ranks, sphere_dataset, tmp_path):
    """The checkpoint of step 4 fails only on rank 1; the one of step 6 succeeds."""
    disk = {"full_disk_at": [3 * 6 + 3], "free_disk_at": [5 * 6 + 3]}
    config = make_config(sphere_dataset, tmp_path / "run", 6, keep_checkpoints=9, **disk)
    assert run_group(ranks, 2, [config]) == [""]
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").glob("step-*"))
    assert names == ["step-00000002", "step-00000006"]
    assert len(losses(tmp_path / "run")) == 6


def test_a_full_disk_ends_the_run_after_max_failed_saves_and_the_last_checkpoint_stays(
    ranks, sphere_dataset, tmp_path
):
    config = make_config(
        sphere_dataset, tmp_path / "run", 8, full_disk_at=[3 * 6], max_failed_saves=2
    )
    (problem,) = run_group(ranks, 1, [config])
    assert problem.startswith("FinalFailure: step 6: 2 checkpoints in a row could not be written")
    assert find_checkpoint(tmp_path / "run").step == 2


def test_a_run_with_only_a_damaged_checkpoint_does_not_begin_anew(ranks, sphere_dataset, tmp_path):
    """A run whose only checkpoint is damaged is refused, and stays as it is."""
    config = make_config(sphere_dataset, tmp_path / "run", 2)
    assert run_group(ranks, 1, [config, config.model_copy(update={"steps": 3})]) == ["", ""]
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000002")
    (path,) = (tmp_path / "run/checkpoints/step-00000003").glob("*optim_states.pt")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (problem,) = run_group(ranks, 1, [config.model_copy(update={"steps": 4})])
    assert "none of its checkpoints is intact (step-00000003)" in problem
    starts = (tmp_path / "run" / START_LOG).read_text().splitlines()
    assert starts == ["fresh", "to be loaded over"]
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1, 2, 3]


def test_a_deleted_store_ends_the_run_after_max_failed_saves(
    ranks, sphere_dataset, bucket, tmp_path
):
    """Uploads run in the background; a failed one is counted when the next one starts."""
    settings = {
        "checkpoints": f"s3://{bucket.name}/run",
        "max_failed_saves": 2,
        "item_seconds": 0.05,
    }
    config = make_config(sphere_dataset, tmp_path / "run", 400, **settings)

    def delete_bucket() -> None:
        deadline = time.monotonic() + 120
        manifest = bucket.objects.filter(Prefix="run/step-00000002/manifest.json")
        while not list(manifest) and time.monotonic() < deadline:
            time.sleep(0.05)
        bucket.objects.all().delete()
        bucket.delete()

    deletion = threading.Thread(target=delete_bucket, daemon=True)
    deletion.start()
    (problem,) = run_group(ranks, 2, [config])
    deletion.join()
    bucket.create()
    assert problem.startswith("FinalFailure: step ")
    assert "2 checkpoints in a row could not be written: s3://" in problem
    assert "cannot upload" in problem


def test_an_upload_that_waits_for_other_ranks_can_be_cancelled(bucket, tmp_path):
    """Rank 0 cancels its upload if another rank fails: no manifest is written, nothing waits."""
    (tmp_path / "rank").mkdir()
    file = tmp_path / "rank/random-00000.pt"
    file.write_bytes(b"abc")
    finished = []
    upload = Upload(
        Storage(f"s3://{bucket.name}/run"),
        "step-00000002",
        {file.name: file},
        lambda: finished.append(True),
        {file.name: 3, "random-00001.pt": 3},
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


def test_an_unreachable_store_is_a_failed_upload(tmp_path):
    """In its own process: the client's error classes exist only once the client is imported."""
    code = (
        "import sys, train.checkpoints.uploads as uploads; from core.storage import Storage\n"
        "from pathlib import Path; from core.retry import Backoff; "
        "assert hasattr(uploads, '_BACKOFF'); uploads._BACKOFF = Backoff(first_seconds=0)\n"
        "file = Path(sys.argv[1]); file.write_bytes(b'abc')\n"
        "upload = uploads.Upload(Storage('s3://bucket/run'), 'step', {'f': file}, None, {})\n"
        "upload._thread.join(); print(upload.problem)"
    )
    unreachable = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    result = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | unreachable | keys, capture_output=True, text=True
    )
    assert "s3://bucket/run/step: cannot upload: Could not connect" in result.stdout
    assert result.stderr.count("checkpoint upload: ") == 5


def test_checkpoints_can_be_stored_in_an_object_store(ranks, sphere_dataset, bucket, tmp_path):
    """They are uploaded in the background, and downloaded by the ranks of the next start."""
    uri = f"s3://{bucket.name}/run/checkpoints"
    settings = {"checkpoints": uri, "keep_checkpoints": 1, "keep_every": 4, "checkpoint_every": 1}
    config = make_config(sphere_dataset, tmp_path / "run", 6, **settings)
    assert run_group(ranks, 2, [config]) == [""]
    checkpoint = latest_checkpoint(Storage(uri))
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.is_complete()) == (6, True)
    steps = {name.split("/")[0] for name in Storage(uri).find_files("")}
    assert steps == {"step-00000004", "step-00000006"}
    assert list((tmp_path / "run/checkpoints-in-transit").rglob("*.pt")) == []
    longer = config.model_copy(update={"steps": 7})
    reference = make_config(sphere_dataset, tmp_path / "reference", 7)
    assert run_group(ranks, 2, [longer, reference]) == ["", ""]
    assert losses(tmp_path / "run") == losses(tmp_path / "reference")
    # With one changed byte the hash differs, and the next start uses the checkpoint before.
    newest = latest_checkpoint(Storage(uri))
    assert newest is not None
    damaged = next(name for name in newest.manifest.files if "optim" in name)
    data = bytearray(Storage(uri).read(f"{newest.name}/{damaged}"))
    data[len(data) // 2] ^= 1
    Storage(uri).write(f"{newest.name}/{damaged}", bytes(data))
    again = config.model_copy(update={"steps": 8})
    problems = run_group(ranks, 2, [again, again])
    assert "is missing or damaged" in problems[0]
    assert problems[1] == ""
    assert losses(tmp_path / "run")[:7] == losses(tmp_path / "reference")
