"""The recipe of Pixel2Mesh: loss, gradients, precision, estimates, validation, previews, resume."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import default_collate
from torch.utils.flop_counter import FlopCounterMode

from core.errors import BadInput
from dataset.snapshots.snapshot import open_snapshot
from tests.support.local_training import run_local_training
from tests.support.metrics import losses, rows
from tests.support.sphere_datasets import with_validation
from tests.support.train_arguments import surface_arguments
from train.checkpoints.checkpoint import find_checkpoint
from train.estimate.sizing import size_run
from train.estimate.step_cost import _Meter
from train.evaluation.camera_scores import CAMERA_SCORES
from train.loop.validation import eval_mode
from train.models.pixel2mesh.template_mesh import ellipsoid
from train.models.surfaces import nearest_points
from train.monitoring.metrics_log import read_metrics
from train.recipes.pixel2mesh import Pixel2MeshRecipe, Pixel2MeshTrainConfig

MODEL = {"num_vertices": 24, "image_size": 32, "encoder_width": 2, "hidden": 16, "last_hidden": 8}


@pytest.fixture
def recipe_of(surface_dataset):
    root, snapshot = surface_dataset

    def make(**changes):
        settings = {
            "root": root.uri,
            "snapshot": snapshot,
            "out": "/nowhere/run",
            "preset": "tiny",
            "model": MODEL,
            "batch_size": 2,
            "preview_size": 32,
            "data": {"num_points": 200},
        }
        return Pixel2MeshRecipe(Pixel2MeshTrainConfig.load(settings | changes))

    return make


def batch_of(recipe, dataset, positions=(0, 1)):
    root, snapshot = dataset
    items = recipe.dataset(root, open_snapshot(root, snapshot).samples)
    return default_collate([items[position] for position in positions])


def module_of(recipe):
    """Return the objective with noise on its parameters: a new model does not move the template."""
    torch.manual_seed(0)
    module = recipe.build()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return module


def test_every_parameter_gets_a_gradient_and_only_the_model_is_saved(recipe_of, surface_dataset):
    recipe = recipe_of()
    module = module_of(recipe)
    terms = module(batch_of(recipe, surface_dataset))
    terms["loss"].backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert 0 < parameter.grad.abs().max() < torch.inf, name
    state = module.state_dict()
    assert {name.partition(".")[0] for name in state} == {"model"}
    parts = {"init_pts", "predicts_displacements", "nn_encoder", "gcns", "gconv"}
    assert {name.split(".")[1] for name in state} == parts
    assert not any(terms[name].requires_grad for name in ("extent", "behind", "folded"))


def test_the_loss_is_the_mean_over_the_objects(recipe_of, surface_dataset):
    recipe = recipe_of()
    module, batch = module_of(recipe), batch_of(recipe, surface_dataset)
    with torch.no_grad():
        together = module(batch)
        singles = [
            module({name: value[row : row + 1] for name, value in batch.items()}) for row in (0, 1)
        ]
    assert {"loss", "chamfer", "extent", "behind", "folded"} <= set(together)
    for name, value in together.items():
        expected = torch.stack([single[name] for single in singles]).mean()
        torch.testing.assert_close(value, expected, rtol=2e-3, atol=1e-6)


def test_bfloat16_is_close_to_float32_and_keeps_coordinates_exact(recipe_of, surface_dataset):
    recipe = recipe_of(precision="bf16")
    module = module_of(recipe)
    batch = batch_of(recipe, surface_dataset)
    with torch.no_grad():
        exact = module(batch)
        exact_mesh = module.model(batch["images"], batch["intrinsics"]).meshes[-1]
        before = module.model.init_pts.clone()
        rounded = module.bfloat16()(batch)
        mesh = module.model(batch["images"], batch["intrinsics"]).meshes[-1]
    assert torch.equal(module.model.init_pts, before)
    assert rounded["loss"].dtype == mesh.dtype == torch.float32
    assert float(rounded["loss"]) == pytest.approx(float(exact["loss"]), rel=0.02)
    assert rounded["loss"] != exact["loss"]
    # Coordinates are no bfloat16 numbers, whose steps are 4 mm in a metre.
    assert (mesh.bfloat16().float() != mesh).float().mean() > 0.9
    assert (mesh - exact_mesh).abs().max() < 0.02


def test_operations_and_memory_of_a_step_are_as_estimated(recipe_of, surface_dataset, monkeypatch):
    # The estimate is that of a GPU, where nearest points are not found with trees.
    monkeypatch.setattr(nearest_points, "tree_search", nearest_points.chunked_search)
    recipe = recipe_of(batch_size=1)
    size = size_run(recipe)
    module, batch = module_of(recipe), batch_of(recipe, surface_dataset, [0])
    for parameter in module.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    forward, backward = (FlopCounterMode(display=False) for _ in "fb")
    with _Meter() as meter:
        with forward:
            loss = module(batch)["loss"]
        with backward:
            loss.backward()
    assert sum(size.forward.values()) == forward.get_total_flops()
    assert size.backward == backward.get_total_flops()
    assert size.memory["activations"] == pytest.approx(meter.peak, rel=0.1)


def test_validation_is_of_one_fixed_view_that_is_not_flipped(recipe_of, surface_dataset):
    root, snapshot = surface_dataset
    samples = list(open_snapshot(root, snapshot).samples)
    recipe = recipe_of()
    item = recipe.validation_dataset(root, samples)[1]
    other = recipe_of(seed=7, data={"num_points": 200, "flip": 1.0})
    again = other.validation_dataset(root, samples[1:])[0]
    assert all(torch.equal(value, again[name]) for name, value in item.items())
    module, batch = module_of(recipe), default_collate([item])
    with eval_mode(module):
        metrics = recipe.evaluate(module, batch)
        assert metrics == recipe.evaluate(module, batch)
        assert set(metrics) == {*CAMERA_SCORES, "extent", "picture_effect"}
        assert metrics["picture_effect"] > 0
        # An encoder whose outputs are all 0 is what is left of one whose units have died.
        for parameter in module.model.nn_encoder.parameters():
            parameter.zero_()
        assert recipe.evaluate(module, batch)["picture_effect"] == 0
        module.model.gconv.bias.fill_(torch.nan)
        assert all(value.isnan() for value in recipe.evaluate(module, batch).values())


@pytest.mark.parametrize(
    ("step", "metrics", "problem"),
    [
        (500, {"extent": 0.02}, "have 2.0% of the size of the true ones: the model has collapsed"),
        (500, {"extent": 0.9, "behind": 0.5}, "50.0% of the vertices are behind the camera"),
        (500, {"extent": 0.9, "picture_effect": 0.0}, "does not depend on the picture"),
        (500, {"extent": 0.9, "behind": 0.0, "loss": 9.0}, ""),
        (500, {"extent": 0.9, "picture_effect": 0.2}, ""),
        (5, {"extent": 0.02}, ""),
    ],
)
def test_a_collapse_is_named_with_a_remedy(recipe_of, step, metrics, problem):
    found = recipe_of().find_problem(step, metrics)
    assert problem in found
    assert bool(found) == bool(problem)
    assert not found or "--optimizer.learning-rate" in found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "huge"}, "model preset 'huge' does not exist"),
        ({"template": {"vertices": [], "faces": []}}, "template: is no mesh"),
    ],
)
def test_an_invalid_model_is_one_line_before_anything_is_written(recipe_of, changes, message):
    with pytest.raises(BadInput, match=message) as error:
        recipe_of(**changes).config.check()
    assert "\n" not in str(error.value)


def test_a_template_file_is_deformed_and_needed_only_once(recipe_of, tmp_path):
    template, path = ellipsoid(30), tmp_path / "template.obj"
    lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in template.vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (template.faces + 1).tolist()]
    path.write_text("\n".join(lines))
    recorded = json.dumps(recipe_of(template=str(path)).config.dump())
    path.unlink()
    model = Pixel2MeshRecipe(Pixel2MeshTrainConfig.load(json.loads(recorded))).build().model
    offset = model.init_pts.new_tensor([0, 0, -0.8])
    expected = torch.tensor(template.vertices, dtype=torch.float32)
    torch.testing.assert_close(model.init_pts + offset, expected)
    assert torch.equal(model.levels[0].faces, torch.tensor(template.faces))
    with pytest.raises(BadInput, match=r"--template .*template\.obj: no such file"):
        recipe_of(template=str(path))


@pytest.fixture(scope="module")
def split_dataset(surface_dataset):
    """Return the spheres with two of the six objects in the validation split."""
    return with_validation(surface_dataset, range(2))


def test_a_run_validates_draws_previews_and_resumes_with_the_same_losses(split_dataset, tmp_path):
    out = tmp_path / "run"
    command = surface_arguments(split_dataset, out, 3, "--preview-every", "3", "--json")
    command += ["--validate-every", "2", "--preview-size", "48", "--check-memory", "false"]
    answer = run_local_training(*command)
    assert answer.json()["step"] == 3
    first, validations = losses(out), read_metrics(out, "validation.jsonl")
    for row in rows(out):
        weights = {"chamfer": 1, "normal": 1.6e-4, "laplace": 0.5, "move": 0.033, "edge": 0.1}
        total = sum(weight * row[name] for name, weight in weights.items())
        assert row["loss"] == pytest.approx(total, rel=1e-5)
        assert row["lr"] <= 1e-4
    assert all({"chamfer", "f_score_1e-4", "picture_effect"} <= set(row) for row in validations)
    assert [row["step"] for row in validations] == [2, 3]
    preview = out / "previews" / "step-00000003.png"
    pixels = np.asarray(Image.open(preview))
    assert pixels.shape == (4 * 48, 48 + 2 * 48, 3)
    for row in range(4):
        cell = pixels[48 * row : 48 * row + 48, 48:96]
        assert len(np.unique(cell.reshape(-1, 3), axis=0)) > 5
    shutil.rmtree(out / "checkpoints" / "step-00000003")
    picture = preview.read_bytes()
    preview.unlink()
    answer = run_local_training(*command)
    assert answer.json()["first_step"] == 2
    assert losses(out) == first
    assert read_metrics(out, "validation.jsonl") == validations
    assert preview.read_bytes() == picture
    # Another run starts from its weights.
    config = Pixel2MeshTrainConfig.load(
        find_checkpoint(out).manifest.config | {"init": str(out), "out": str(tmp_path / "next")}
    )
    config.check_start()
    weights = find_checkpoint(out).weights()
    started = Pixel2MeshRecipe(config).build().state_dict()
    assert all(torch.equal(value, started[name]) for name, value in weights.items())
    report = json.loads((tmp_path / "next" / "init.json").read_text())
    assert report["init"] == str(out)
