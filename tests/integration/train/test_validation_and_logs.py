"""Validation, TensorBoard curves and logs: they are correct, and do not change the training."""

import io
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from core.errors import WorkFailed
from dataset.snapshots.snapshot import open_snapshot
from tests.support import tiny_recipe
from tests.support.nerf_runs import make_config, train_nerf, validate, validate_new_model
from tests.support.ranks import Ranks
from tests.support.run_files import step_values
from tests.support.sphere_datasets import with_validation
from train.estimate.sizing import size_run
from train.loop.validation import eval_mode
from train.monitoring.metrics_log import MetricsLog, read_metrics
from train.recipes.nerf import NerfRecipe, NerfTrainConfig


def test_a_full_disk_delays_log_lines_and_loses_none(tmp_path, caplog):
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    log = MetricsLog(tmp_path, 0)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        for step in range(1, 21):
            log.write(step=step, **step_values())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert (tmp_path / "metrics.jsonl").stat().st_size == 100
    assert caplog.text.count("its lines are buffered") == 1
    log.write(step=21, **step_values())
    log.close()
    assert [row["step"] for row in read_metrics(tmp_path)] == list(range(1, 22))


@pytest.fixture(scope="module")
def split_dataset(sphere_dataset):
    """Return the sphere dataset with three of its six objects in the validation split."""
    return with_validation(sphere_dataset, (1, 3, 5))


@pytest.fixture
def single_process_group(tmp_path):
    """Make this process a process group with one rank while the test runs."""
    store = f"file://{tmp_path / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def train(ranks: Ranks, settings: NerfTrainConfig) -> list[str]:
    """Train on one rank and return its log messages."""
    (messages,) = ranks.run(1, train_nerf, settings.dump())
    return messages


def read_untimed(out: Path, name: str) -> list[dict]:
    """Return the rows of a log file without the values that depend on the clock."""
    timed = ("seconds", "time", "goodput", "samples_per_second")
    return [
        {key: value for key, value in row.items() if not key.startswith(timed)}
        for row in read_metrics(out, name)
    ]


def read_curve(out: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


@pytest.fixture(scope="module")
def logged_run(ranks, split_dataset, tmp_path_factory) -> Path:
    """Train four steps with validation, previews and TensorBoard."""
    out = tmp_path_factory.mktemp("logged")
    train(ranks, make_config(split_dataset, out, 4, validate_every=1, preview_every=2))
    return out


def test_validation_previews_and_tensorboard_do_not_change_the_training(
    ranks, split_dataset, logged_run, tmp_path
):
    """The losses are bit-identical to those of a run without any of them."""
    unlogged = make_config(split_dataset, tmp_path, 4, validate_every=0, loggers=[])
    train(ranks, unlogged)
    assert read_untimed(tmp_path, "metrics.jsonl") == read_untimed(logged_run, "metrics.jsonl")
    assert [row["step"] for row in read_untimed(logged_run, "metrics.jsonl")] == [1, 2, 3, 4]
    assert read_untimed(tmp_path, "validation.jsonl") == []
    assert not (tmp_path / "tensorboard").exists()


def test_eval_mode_leaves_no_trace():
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    module[1].eval()
    before = torch.get_rng_state()
    with pytest.raises(KeyError), eval_mode(module):
        assert not module[0].training
        assert not torch.is_grad_enabled()
        torch.rand(3)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
    assert [part.training for part in module.modules()] == [True, True, False, False]


def test_validation_leaves_the_random_states_unchanged(
    single_process_group, split_dataset, tmp_path
):
    recipe = NerfRecipe(make_config(split_dataset, tmp_path, 1))
    module = recipe.build()
    states = (torch.get_rng_state(), np.random.get_state()[1].copy())
    first = validate(recipe, split_dataset, module)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert validate(recipe, split_dataset, module) == first
    assert module.training


def test_validation_runs_at_the_configured_steps(logged_run):
    rows = read_untimed(logged_run, "validation.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(set(row) == {"step", "psnr", "ssim", "mask_iou"} for row in rows)
    assert len({row["psnr"] for row in rows}) == 4
    assert all(0 < row["psnr"] < 40 and -1 <= row["ssim"] <= 1 for row in rows)


def test_whole_views_that_do_not_depend_on_their_neighbours(split_dataset, tmp_path):
    root, snapshot = split_dataset
    samples = list(open_snapshot(root, snapshot).of_split("validation"))
    recipes = [NerfRecipe(make_config(split_dataset, tmp_path, 1, seed=seed)) for seed in (0, 7)]
    item = recipes[0].validation_dataset(root, samples)[1]
    other = recipes[1].validation_dataset(root, samples[1:])[0]
    assert all(torch.equal(value, other[name]) for name, value in item.items())
    assert item["target_rgb"].shape == (3, 3, 16, 16)
    # Whole and not augmented: the lens of the whole view, input cameras without noise.
    assert torch.equal(item["target_intrinsics"][:2], item["input_intrinsics"])
    assert torch.equal(item["target_camera_to_world"][:2], item["camera_to_world"])


def test_a_resumed_run_repeats_its_validations(ranks, split_dataset, logged_run, tmp_path):
    """A run killed after step 3 resumes from step 2 without duplicate lines, points or pictures."""
    config = make_config(split_dataset, tmp_path, 4, validate_every=1, preview_every=2)
    train(ranks, config.model_copy(update={"steps": 3}))
    (tmp_path / "checkpoints" / "step-00000003" / "manifest.json").unlink()
    train(ranks, config)
    for name in ("metrics.jsonl", "validation.jsonl"):
        assert read_untimed(tmp_path, name) == read_untimed(logged_run, name)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    for tag in ("train/loss", "train/lr", "validation/psnr"):
        assert read_curve(tmp_path, tag) == read_curve(logged_run, tag)
        assert [step for step, _ in read_curve(tmp_path, tag)] == [1, 2, 3, 4]


def test_tensorboard_shows_the_previews(logged_run):
    events = EventAccumulator(str(logged_run / "tensorboard")).Reload()
    images = events.Images("preview")
    assert [event.step for event in images] == [2, 4]
    picture = np.asarray(Image.open(io.BytesIO(images[1].encoded_image_string)))
    saved = np.asarray(Image.open(logged_run / "previews" / "step-00000004.png"))
    assert np.array_equal(picture, saved)


def test_a_missing_validation_split_is_logged_once(ranks, sphere_dataset, tmp_path):
    messages = train(ranks, make_config(sphere_dataset, tmp_path, 1, validate_every=1))
    warnings = [message for message in messages if "no validation split" in message]
    assert len(warnings) == 1
    assert read_untimed(tmp_path, "validation.jsonl") == []


def test_validation_metrics_do_not_depend_on_the_world_size(ranks, split_dataset, tmp_path):
    """Three objects divided over two ranks give the metrics of one rank."""
    settings = make_config(split_dataset, tmp_path, 1).dump()
    (expected,) = ranks.run(1, validate_new_model, settings)
    assert ranks.run(2, validate_new_model, settings) == [expected, expected]


@pytest.mark.parametrize(("zero_stage", "num_evaluated"), [(2, [1, 1, 0]), (3, [1, 1, 1])])
def test_only_with_zero_3_a_rank_without_an_object_evaluates_one(
    ranks, sphere_dataset, tmp_path, zero_stage, num_evaluated
):
    """Two objects on three ranks; with ZeRO 3, the third one takes part in every forward pass."""
    config = tiny_recipe.make_config(sphere_dataset, tmp_path, 1, zero_stage=zero_stage)
    results = ranks.run(3, tiny_recipe.validate_two_objects, config.dump())
    assert [count for count, _ in results] == num_evaluated
    (expected,) = ranks.run(1, tiny_recipe.validate_two_objects, config.dump())
    assert [metrics for _, metrics in results] == [expected[1]] * 3


def test_an_object_whose_metric_is_nan_is_named(single_process_group, split_dataset, tmp_path):
    recipe = NerfRecipe(make_config(split_dataset, tmp_path, 1))
    module = recipe.build()
    with torch.no_grad():
        module.model.synthesizer.decoder.net[-1].bias.fill_(float("nan"))
    with pytest.raises(WorkFailed, match=r"objaverse:0+1: validation: psnr is nan"):
        validate(recipe, split_dataset, module)


def test_the_size_of_a_checkpoint_is_as_estimated(split_dataset, logged_run):
    recipe = NerfRecipe(make_config(split_dataset, logged_run, 4))
    (newest,) = (logged_run / "checkpoints").glob("step-00000004")
    num_bytes = sum(path.stat().st_size for path in newest.rglob("*.pt"))
    assert size_run(recipe).checkpoint_bytes == pytest.approx(num_bytes, rel=0.05)
