"""Training through the command line in one process: resumed, refused."""

import contextlib
import json
import os
import shutil
import socket
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.process_identity import start_ticks
from tests.support.damages import DAMAGES, copy_folder
from tests.support.local_training import run_local_training
from tests.support.lrm import run_lrm
from tests.support.metrics import losses, rows
from tests.support.run_damage import bad_end, cells
from tests.support.train_arguments import mesh_arguments, nerf_arguments

STEPS = 4


@pytest.fixture(scope="module")
def undisturbed(sphere_dataset, tmp_path_factory) -> Path:
    """Return the run folder of four steps in this process, without an interruption."""
    out = tmp_path_factory.mktemp("undisturbed")
    preview = ["--preview-every", str(STEPS), "--json"]
    answer = run_local_training(*nerf_arguments(sphere_dataset, out, STEPS, *preview))
    assert answer.json()["step"] == STEPS
    return out


def test_every_step_writes_one_line_of_metrics(undisturbed):
    metrics = rows(undisturbed)
    assert [row["step"] for row in metrics] == [1, 2, 3, 4]
    assert [row["samples"] for row in metrics] == [2, 4, 6, 8]
    assert len({row["batch"] for row in metrics}) > 1
    for row in metrics:
        assert row["loss"] == pytest.approx(row["mse"] + row["mask"], rel=1e-5)
        assert 0 < row["lr"] <= 4e-4


def test_a_preview_is_not_empty(undisturbed):
    picture = np.asarray(Image.open(undisturbed / "previews" / f"step-{STEPS:08d}.png"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100


def test_a_finished_run_does_nothing(sphere_dataset, undisturbed):
    before = losses(undisturbed)
    summary = run_lrm(*nerf_arguments(sphere_dataset, undisturbed, STEPS, "--json")).json()
    assert summary["first_step"] == summary["step"] == STEPS
    assert losses(undisturbed) == before


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["--num-workers", "2", "--seed", "5"], ["other settings", "seed (0 -> 5)"]),
        (["--num-workers", "2:1"], ["--num-workers", "MIN:MAX such as 2:8, not '2:1'"]),
        (["--num-workers", "2", "--optimizer.beta1", "0.5"], ["optimizer", "0.5"]),
        (["--num-workers", "3"], ["batch_size 2 is not a multiple of num_workers 3"]),
        (["--num-workers", "2", "--preset", "huge"], ["model preset 'huge'"]),
        (["--num-workers", "2", "--init", "dino:/gone"], ["init (None -> 'dino:/gone')"]),
        (["--num-workers", "2", "--loss.lpips", "2"], ["lpips"]),
        (["--num-workers", "2", "--data.patch-size", "64"], ["patch_size 64"]),
    ],
)
def test_a_run_with_other_settings_is_refused(sphere_dataset, undisturbed, more, parts):
    home = {"TORCH_HOME": "/nowhere"}
    answer = run_lrm(*nerf_arguments(sphere_dataset, undisturbed, 8, *more), **home)
    assert answer.code == 2, answer.err
    (line,) = answer.err.strip().splitlines()
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--num-workers", "600"], ["too many for this machine: 600 needed,", "needs CPU 1"]),
        (["--num-workers", "600:1200"], ["--num-workers 600:1200", "600 needed"]),
        (
            ["--worker-resources", "{CPU: 1, train: 1}"],
            ["1 needed, 0 fit", "needs CPU 1, train 1", "train 0"],
        ),
    ],
)
def test_more_workers_than_this_machine_can_hold_are_refused_at_once(
    sphere_dataset, tmp_path, options, parts
):
    """No node can join the Ray that `--address local` starts."""
    words = nerf_arguments(sphere_dataset, tmp_path / "run", STEPS, *options)
    words[words.index("--batch-size") + 1] = "1200"
    started = time.monotonic()
    answer = run_lrm(*words)
    assert time.monotonic() - started < 5
    assert answer.code == 2
    (line,) = answer.err.strip().splitlines()
    for part in parts:
        assert part in line
    assert not (tmp_path / "run").exists()


def test_a_dataset_and_a_run_of_another_recipe_are_no_place_for_a_run(
    sphere_dataset, undisturbed, tmp_path
):
    before = sorted(path.name for path in Path(undisturbed).iterdir())
    answer = run_lrm(*mesh_arguments(sphere_dataset, undisturbed, STEPS))
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "of the recipe nerf, not mesh" in answer.err
    assert sorted(path.name for path in Path(undisturbed).iterdir()) == before
    (tmp_path / "dataset.json").write_text('{"format": 2}')
    answer = run_lrm(*nerf_arguments(sphere_dataset, tmp_path / "run", STEPS))
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert f"{tmp_path} is a dataset" in answer.err
    assert not (tmp_path / "run").exists()


def test_the_status_names_the_state_and_verifies_hashes(undisturbed, tmp_path):
    out = shutil.copytree(undisturbed, tmp_path / "run")
    status = run_lrm("train", "--status", out, "--json").json()
    assert (status["state"], status["recipe"], status["done"]) == ("done", "nerf", True)
    assert [row["step"] for row in status["checkpoints"]] == [4, 2]
    assert {row["hashes"] for row in status["checkpoints"]} == {"not checked"}
    (damaged,) = (out / "checkpoints/step-00000002").glob("mp_rank_00_model_states.pt")
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert run_lrm("train", "--status", out).code == 0
    answer = run_lrm("train", "--status", out, "--verify")
    assert answer.code == 1
    assert answer.out.startswith("done\n")
    assert f"step 2: {damaged.name} is missing or damaged" in answer.out
    answer = run_lrm("train", "--status", out, "--verify", "--json")
    rows = json.loads(answer.out)["checkpoints"]
    assert [row["hashes"] for row in rows] == ["match", "differ"]
    assert all(row["whole"] for row in rows)
    manifest = out / "checkpoints/step-00000002/manifest.json"
    manifest.write_text(manifest.read_text()[:-20])
    answer = run_lrm("train", "--status", out, "--verify")
    assert (answer.code, "step 2: manifest.json is missing or damaged" in answer.out) == (1, True)
    manifest.unlink()  # as while it is being written
    answer = run_lrm("train", "--status", out, "--verify")
    assert (answer.code, "step 2: incomplete; a resume skips it" in answer.out) == (0, True)
    answer = run_lrm("train", "--verify")
    assert (answer.code, "--verify needs --status" in answer.err) == (2, True)


def test_no_damage_of_a_run_ends_in_a_traceback_or_gives_other_weights(undisturbed, tmp_path):
    expected = {}
    for step in (2, STEPS):
        checkpoint = undisturbed / "checkpoints" / f"step-{step:08d}"
        assert run_lrm("weights", "--run", checkpoint, "--out", tmp_path / "w.ckpt").code == 0
        expected[step] = (tmp_path / "w.ckpt").read_bytes()
    problems = []
    for number, name, kind in cells(undisturbed):
        run = copy_folder(undisturbed, tmp_path / f"{number} {name.replace('/', ' ')} {kind}")
        DAMAGES[kind](run / name)
        words = ["--json"] if number % 2 else ["--verify", "--json"]
        answer = run_lrm("train", "--status", run, *words)
        problem = bad_end(answer, run)
        status = json.loads(answer.out) if answer.out else {"step": STEPS, "checkpoints": []}
        if not problem and status["step"] != STEPS:
            problem = f"step {status['step']}"
        if not problem and name == "metrics.jsonl" and answer.code == 0 and name not in answer.err:
            problem = "no warning"
        (tmp_path / "w.ckpt").unlink(missing_ok=True)
        answer = run_lrm("weights", "--run", run, "--out", tmp_path / "w.ckpt", "--json")
        problem = problem or bad_end(answer, run)
        if answer.code == 0:
            step = answer.json()["step"]
            is_warned = step == STEPS or f"step-{STEPS:08d}: not an intact" in answer.err
            if not is_warned or (tmp_path / "w.ckpt").read_bytes() != expected[step]:
                problem = f"other weights, of step {step}: {answer.err}"
        if problem:
            problems.append(f"{name} {kind}: {problem}")
        shutil.rmtree(run)
    assert not problems, "\n".join(problems)


def test_the_status_tells_killed_runs_from_stopped_ones(undisturbed, tmp_path):
    out = shutil.copytree(undisturbed, tmp_path / "run")
    run = json.loads((out / "run.json").read_text())
    run["config"]["steps"] = 9
    (out / "run.json").write_text(json.dumps(run))
    record = json.loads((out / "run_state.json").read_text())

    def state(**changes) -> str:
        (out / "run_state.json").write_text(json.dumps(record | changes))
        return run_lrm("train", "--status", out, "--json").json()["state"]

    assert state(state="running", pid=os.getpid(), started=start_ticks(os.getpid())) == "running"
    assert state(state="running", started="1") == "dead"
    assert state(state="starting", kernel="of another machine", time=time.time()) == "starting"
    last = rows(out)[-1]["time"]
    before = {"started": start_ticks(os.getpid()), "pid": os.getpid(), "time": last - 1}
    assert state(state="starting", **before) == "running"
    assert state(state="running", kernel="of another machine", time=time.time() - 99) == "dead"
    assert state(state="stopped") == "stopped"
    assert state(state="failed", message="step 5: no space") == "failed"
    assert "failed: step 5: no space" in run_lrm("train", "--status", out).out
    (out / "run_state.json").unlink()  # as of an older version: the last step has a checkpoint
    assert run_lrm("train", "--status", out, "--json").json()["state"] == "stopped"
    shutil.rmtree(out / "checkpoints" / "step-00000004")
    assert run_lrm("train", "--status", out, "--json").json()["state"] == "dead"


def test_a_run_serves_its_metrics_and_runs_its_hook(sphere_dataset, tmp_path):
    """Neither the hook nor the port is recorded: a hook may contain a password."""
    told = 'echo "$LRM_OUTCOME $LRM_SUBJECT: $LRM_MESSAGE"'
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pages: list[str] = []

    def scrape() -> None:
        while not any("lrm_train_loss " in page for page in pages[-1:]):
            with contextlib.suppress(OSError):
                address = f"http://127.0.0.1:{port}/metrics"
                pages.append(urllib.request.urlopen(address, timeout=5).read().decode())
            time.sleep(0.05)

    out, hook = tmp_path / "run", tmp_path / "hook.txt"
    scraper = threading.Thread(target=scrape, daemon=True)
    scraper.start()
    options = ["--metrics-port", port, "--notify", f"{told} | tee {hook}"]
    words = nerf_arguments(sphere_dataset, out, 6, *options)
    assert run_local_training(*words, "--loggers", "[]").code == 0
    scraper.join(5)
    values = dict(line.rsplit(" ", 1) for line in pages[-1].splitlines() if line[0] != "#")
    assert float(values["lrm_train_steps"]) == 6
    step = int(float(values["lrm_train_step"]))
    assert float(values["lrm_train_loss"]) == pytest.approx(rows(out)[step - 1]["loss"])
    assert 0 < float(values["lrm_train_goodput_ratio"]) <= 1
    assert float(values["lrm_train_samples_per_second"]) > 0
    assert float(values["lrm_train_restarts_total"]) == 0
    assert hook.read_text() == f"done lrm train nerf --out {out}: \n"
    recorded = (out / "run.json").read_text() + (out / "run_state.json").read_text()
    assert "LRM_OUTCOME" not in recorded
    assert str(port) not in recorded
    hook.unlink()
    for wrong in (["--seed", "3"], ["--batch-size", "0"]):
        answer = run_lrm(*words, *wrong)
        assert answer.code == 2
        line, by_hook = answer.err.splitlines()[-2:]
        assert by_hook == f"refused lrm train nerf --out {out}: {line.removeprefix('lrm train: ')}"
        assert hook.read_text() == f"{by_hook}\n"
        hook.unlink()


def test_an_unknown_snapshot_is_refused_and_the_others_are_listed(sphere_dataset, tmp_path):
    answer = run_lrm(*nerf_arguments((sphere_dataset[0], "0000"), tmp_path / "run", 2))
    assert answer.code == 2
    # Other tests create snapshots in this dataset too.
    listed = answer.err.rpartition("there are: ")[2]
    assert sphere_dataset[1] in listed.strip().split(", ")
    assert not (tmp_path / "run").exists()
