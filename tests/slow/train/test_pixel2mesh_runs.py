"""Runs of Pixel2Mesh: killed, resumed on other ranks, every ZeRO stage, damage, collapse."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from core.storage import Storage
from dataset.snapshots.snapshot import open_snapshot
from tests.support.metrics import losses, rows
from tests.support.pixel2mesh_runs import SMALL, make_settings, train_pixel2mesh
from tests.support.ranks import RankFailed, Ranks
from tests.support.sphere_datasets import with_validation
from train.checkpoints.checkpoint import find_checkpoint
from train.monitoring.metrics_log import read_metrics

STEPS = 5
ALL_SPLIT = {
    "zero_stage": 3,
    # Otherwise a small model is not split over the ranks at all.
    "deepspeed": {"zero_optimization": {"stage3_param_persistence_threshold": 0}},
    "preview_every": 2,
    "validate_every": 2,
}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> Iterator[Ranks]:
    ranks = Ranks(tmp_path_factory.mktemp("ranks"))
    yield ranks
    ranks.close()


@pytest.fixture(scope="module")
def split_dataset(surface_dataset) -> tuple[Storage, str]:
    """Return the spheres with one of the six objects in the validation split."""
    return with_validation(surface_dataset, [0])


@pytest.fixture(scope="module")
def undisturbed(ranks, split_dataset, tmp_path_factory) -> Path:
    """Return the run folder of five steps on two ranks without an interruption."""
    out = tmp_path_factory.mktemp("undisturbed")
    ranks.run(2, train_pixel2mesh, make_settings(split_dataset, out, STEPS, num_workers=2))
    return out


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = (find_checkpoint(out).weights() for out in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_killed_run_resumes_bit_by_bit(ranks, split_dataset, undisturbed, tmp_path):
    settings = make_settings(split_dataset, tmp_path, STEPS, num_workers=2)
    with pytest.raises(RankFailed, match="ended with exit code -9"):
        ranks.run(2, train_pixel2mesh, settings, 4)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4]
    assert find_checkpoint(tmp_path).step == 2
    ranks.run(2, train_pixel2mesh, settings)
    assert losses(tmp_path) == losses(undisturbed)
    assert_same_weights(tmp_path, undisturbed)


def test_a_run_resumes_on_fewer_ranks_with_the_same_samples(
    ranks, split_dataset, undisturbed, tmp_path
):
    out = tmp_path / "run"
    shutil.copytree(undisturbed, out)
    shutil.rmtree(out / "checkpoints" / f"step-{STEPS:08d}")
    ranks.run(1, train_pixel2mesh, make_settings(split_dataset, out, STEPS, num_workers=1))
    assert losses(out) == pytest.approx(losses(undisturbed), abs=1e-5)
    batches = [[row["batch"] for row in rows(one)] for one in (out, undisturbed)]
    assert batches[0] == batches[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"zero_stage": 0, "loader_workers": 1},
        {"zero_stage": 2, "micro_batch": 1, "activation_checkpointing": True},
        ALL_SPLIT,
        {"zero_stage": 1, "offload_optimizer": True},
        {"precision": "bf16"},
    ],
    ids=str,
)
def test_every_way_of_training_has_the_same_losses_and_resumes(
    ranks, split_dataset, undisturbed, tmp_path, changes
):
    settings = make_settings(split_dataset, tmp_path, STEPS, num_workers=2, **changes)
    ranks.run(2, train_pixel2mesh, settings)
    expected = losses(tmp_path)
    tolerance = 0.05 if "precision" in changes else 1e-3
    assert expected == pytest.approx(losses(undisturbed), rel=tolerance)
    shutil.rmtree(tmp_path / "checkpoints" / f"step-{STEPS:08d}")
    ranks.run(2, train_pixel2mesh, settings)
    assert losses(tmp_path) == expected


def test_a_sample_with_damaged_geometry_is_replaced_and_logged(ranks, surface_dataset, tmp_path):
    root, snapshot = surface_dataset
    folder = shutil.copytree(root.uri, tmp_path / "root")
    sample = open_snapshot(root, snapshot).samples[2]
    path = folder / sample.geometry
    path.write_bytes(path.read_bytes()[:200])
    copy = type(root)(str(folder))
    out = tmp_path / "run"
    ranks.run(1, train_pixel2mesh, make_settings((copy, snapshot), out, 2))
    replaced = read_metrics(out, "replaced.jsonl")
    assert {row["asset_id"] for row in replaced} == {sample.asset_id}
    assert sum(row.get("replaced", 0) for row in rows(out)) == len(replaced) > 0


def test_a_collapsed_model_is_named_when_it_is_saved(ranks, surface_dataset, tmp_path):
    """A new model as published predicts tiny meshes; without learning that does not change."""
    model = {**SMALL["model"], "published": "align_corners"}
    optimizer = {"learning_rate": 1e-12, "final_learning_rate": 0}
    changes = {"batch_size": 1, "checkpoint_every": 50, "model": model, "optimizer": optimizer}
    settings = make_settings(surface_dataset, tmp_path, 100, **changes)
    (messages,) = ranks.run(1, train_pixel2mesh, settings)
    collapsed = [message for message in messages if "the model has collapsed" in message]
    assert len(collapsed) == 1
    assert collapsed[0].startswith("step 100: the predicted meshes have 0.")
