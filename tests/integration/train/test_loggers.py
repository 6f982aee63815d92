"""Runs that log to programs beside the files, are killed and resumed: no step is logged twice."""

import json
import logging
import re

import pytest

from tests.support.tiny_recipe import make_config, run_group
from train.loop.run_folder import check_run_folder
from train.monitoring.metrics_log import read_metrics
from train.recipes.registry import recipe_of


def train_and_repeat(ranks, dataset, out, logger: str) -> dict:
    """Train five steps, lose the checkpoints after step 2, and train to step 6."""
    config = make_config(dataset, out, 5, loggers=[logger], preview_every=2)
    assert run_group(ranks, 1, [config]) == [""]
    for step in (4, 5):
        (out / f"checkpoints/step-{step:08d}/manifest.json").unlink()
    assert run_group(ranks, 1, [config.model_copy(update={"steps": 6})]) == [""]
    return {row["step"]: row["loss"] for row in read_metrics(out)}


def test_mlflow_shows_every_step_once(ranks, sphere_dataset, tmp_path, monkeypatch):
    client_module = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    losses = train_and_repeat(ranks, sphere_dataset, tmp_path, "mlflow")
    client = client_module.MlflowClient(f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("lrm").experiment_id])
    assert run.info.run_id == json.loads((tmp_path / "loggers.json").read_text())["mlflow"]
    assert (run.info.status, run.info.run_name) == ("FINISHED", tmp_path.name)
    assert run.data.params["optimizer.learning_rate"] == "0.01"
    curve = client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in curve] == [1, 2, 3, 4, 5, 6]
    assert {point.step: point.value for point in curve} == pytest.approx(losses)
    pictures = client.list_artifacts(run.info.run_id, "images")
    steps = {re.findall(r"step\D(\d+)", picture.path)[0] for picture in pictures}
    assert steps == {"2", "4", "5", "6"}


def test_wandb_continues_its_run(ranks, sphere_dataset, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train_and_repeat(ranks, sphere_dataset, tmp_path, "wandb")
    number = json.loads((tmp_path / "loggers.json").read_text())["wandb"]
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert [folder.name.rpartition("-")[2] for folder in folders] == [number, number]
    pictures = [
        sorted(path.name.split("_")[1] for path in folder.rglob("preview_*.png"))
        for folder in folders
    ]
    assert pictures == [["2", "4", "5"], ["6"]]


def test_a_run_folder_contains_only_what_a_run_writes(ranks, sphere_dataset, tmp_path, caplog):
    config = make_config(
        sphere_dataset, tmp_path, 2, loggers=["tensorboard"], preview_every=1, validate_every=1
    )
    assert run_group(ranks, 1, [config]) == [""]
    (tmp_path / "run.json").unlink()
    (tmp_path / "built.txt").unlink()  # written by the recipe of the tests
    with caplog.at_level(logging.WARNING):
        check_run_folder(config, recipe_of)
    assert caplog.text == ""
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
