"""The recipes of both LRM stages: losses, gradients, numbers of views, precision, previews."""

import pytest
import torch
from torch.utils.data import default_collate

from core.errors import BadInput
from dataset.snapshots.snapshot import open_snapshot
from train.loop.validation import eval_mode
from train.models.lpips import Lpips
from train.recipes.mesh import MeshRecipe, MeshTrainConfig, view_by_view
from train.recipes.nerf import NerfRecipe, NerfTrainConfig

MODEL = {
    "encoder": {"num_layers": 1, "width": 32, "mlp_width": 64},
    "transformer": {"num_layers": 1, "width": 48, "low_resolution": 8, "high_resolution": 16},
    "image_size": 32,
}
RENDERERS = {
    "nerf": {"nerf": {"samples_per_ray": 16, "decoder_width": 16}},
    "mesh": {"mesh": {"grid_resolution": 16, "decoder_width": 16}},
}
PATCHES = {"patch_size": 16, "target_size_min": 24, "target_size_max": 32}
TOLERANCE = 0.01
"""Maximum relative error of the loss in bfloat16; one number, of 8 bits, has up to 0.4 %."""


def recipe_of(stage, dataset, num_inputs=2):
    root, snapshot = dataset
    sizes = {"num_inputs": num_inputs, "num_targets": 1}
    sizes |= PATCHES if stage == "nerf" else {"frame_size": 32}
    settings = {
        "root": root.uri,
        "snapshot": snapshot,
        "out": "/nowhere/run",
        "preset": "tiny",
        "model": MODEL | RENDERERS[stage],
        "data": sizes,
        "loss": {"lpips": 0},
        "preview_size": 24,
    }
    config, make = {
        "nerf": (NerfTrainConfig, NerfRecipe),
        "mesh": (MeshTrainConfig, MeshRecipe),
    }[stage]
    return make(config.load(settings))


def batch_of(recipe, dataset, positions=(0, 1)):
    root, snapshot = dataset
    items = recipe.dataset(root, open_snapshot(root, snapshot).samples)
    return default_collate([items[position] for position in positions])


def objective_of(recipe):
    """Return a new objective with noise on all parameters: zeros would stop the gradients."""
    torch.manual_seed(0)
    objective = recipe.build()
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return objective


@torch.no_grad()
def put_surface(objective, batch, quantile):
    """Shift the bias of the distances so that `quantile` of the first object's grid is inside.

    Returns the lowest distance of each object before the shift.
    """
    planes = objective.model.forward_planes(
        batch["images"], batch["camera_to_world"], batch["intrinsics"]
    )
    synthesizer = objective.model.synthesizer
    distances = synthesizer.distances(planes)[:, ~synthesizer.outside]
    synthesizer.decoder.net_sdf[-1].bias.sub_(distances[0].quantile(quantile))
    return distances.amin(dim=1)


@pytest.mark.parametrize("stage", ["nerf", "mesh"])
def test_gradients_reach_every_parameter(stage, sphere_dataset):
    recipe = recipe_of(stage, sphere_dataset)
    objective, batch = objective_of(recipe), batch_of(recipe, sphere_dataset)
    if stage == "mesh":
        put_surface(objective, batch, 0.4)
    terms = objective(batch)
    terms["loss"].backward()
    assert all(term.isfinite() for term in terms.values())
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_an_object_without_a_surface_gives_finite_gradients_in_a_batch(sphere_dataset):
    recipe = recipe_of("mesh", sphere_dataset)
    objective, batch = objective_of(recipe), batch_of(recipe, sphere_dataset)
    lowest = put_surface(objective, batch, 0.5)
    full, empty = lowest.argsort().tolist()
    bias = objective.model.synthesizer.decoder.net_sdf[-1].bias
    with torch.no_grad():
        planes = objective.model.forward_planes(
            batch["images"], batch["camera_to_world"], batch["intrinsics"]
        )
        distances = objective.model.synthesizer.distances(planes)
        distances = distances[:, ~objective.model.synthesizer.outside].amin(dim=1)
        bias.sub_(distances.mean())
        repaired = objective.model.synthesizer.geometry(planes).repaired
    assert (bool(repaired[full]), bool(repaired[empty])) == (False, True)
    terms = objective(batch)
    assert terms["repaired"] == 0.5
    terms["loss"].backward()
    assert all(term.isfinite() for term in terms.values())
    assert all(p.grad.isfinite().all() for p in objective.parameters() if p.grad is not None)
    assert bias.grad.abs() > 0


@pytest.mark.parametrize("stage", ["nerf", "mesh"])
def test_any_number_of_input_views_gives_a_finite_loss(stage, sphere_dataset):
    objective = objective_of(recipe_of(stage, sphere_dataset))
    for num_inputs in (1, 2, 6):
        recipe = recipe_of(stage, sphere_dataset, num_inputs)
        batch = batch_of(recipe, sphere_dataset, [3])
        assert batch["images"].shape[1] == num_inputs
        assert batch["target_rgb"].shape[1] == num_inputs + 1
        assert objective(batch)["loss"].isfinite()


@pytest.mark.parametrize("stage", ["nerf", "mesh"])
def test_bfloat16_is_close_to_float32(stage, sphere_dataset):
    recipe = recipe_of(stage, sphere_dataset)
    objective, batch = objective_of(recipe), batch_of(recipe, sphere_dataset)
    if stage == "mesh":
        put_surface(objective, batch, 0.4)
    with torch.no_grad():
        exact = objective(batch)
        with torch.autocast("cpu", torch.bfloat16):
            autocast = objective(batch)
        rounded = objective.bfloat16()(batch)
    for terms in (autocast, rounded):
        assert terms["loss"].dtype == torch.float32
        assert terms["loss"].item() == pytest.approx(exact["loss"].item(), rel=TOLERANCE)
        assert terms["loss"] != exact["loss"]


@pytest.mark.parametrize("stage", ["nerf", "mesh"])
def test_previews_show_all_rows_and_the_targets_of_the_input_views(stage, sphere_dataset):
    recipe = recipe_of(stage, sphere_dataset)
    root, snapshot = sphere_dataset
    samples = open_snapshot(root, snapshot).samples
    objective = objective_of(recipe)
    item = recipe.preview_dataset(root, samples)[4]
    trained_on = recipe.dataset(root, samples)[4]
    for name in ("images", "camera_to_world", "intrinsics", "target_camera_to_world"):
        assert torch.equal(item[name], trained_on[name]), name
    with torch.no_grad():
        sheet = recipe.preview(objective, default_collate([item]))
    height, width = 9 * 24, 48 + 2 * 24
    assert sheet.size == (width, height)
    pixels = torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8)
    rows = pixels.view(9, 24, width, 3)[:, :, 48:].float() / 255
    # Inputs and targets show the same views, but are resized in two ways, so differ slightly.
    assert (rows[0] - rows[1]).abs().mean() < 0.02
    background = rows[1].amin(dim=-1) > 0.99
    for target, background_value in ((3, 0.0), (5, 0.0), (7, 1.0)):  # alpha, depth, normals
        outside = (rows[target] - background_value).abs().amax(dim=-1) < 0.01
        assert (outside == background).float().mean() > 0.9


@pytest.mark.parametrize("stage", ["nerf", "mesh"])
def test_validation_scores_whole_views_that_were_not_inputs(stage, sphere_dataset):
    """Only the view that was not an input is scored."""
    root, snapshot = sphere_dataset
    recipe = recipe_of(stage, sphere_dataset)
    samples = list(open_snapshot(root, snapshot).samples)[:2]
    item = recipe.validation_dataset(root, samples)[1]
    assert item["target_rgb"].shape == (3, 3, 32, 32)
    assert torch.equal(item["target_camera_to_world"][:2], item["camera_to_world"])
    batch = {name: value[None] for name, value in item.items()}
    objective = objective_of(recipe)
    if stage == "mesh":
        put_surface(objective, batch, 0.3)
    with eval_mode(objective):
        metrics = recipe.evaluate(objective, batch)
    expected = {"psnr", "ssim", "mask_iou"}
    assert set(metrics) == expected | (
        {"depth_error", "normal_angle"} if stage == "mesh" else set()
    )
    assert all(value.ndim == 0 and value.isfinite() for value in metrics.values())
    # Targets of the input views have no effect.
    for name in ("target_rgb", "target_alpha"):
        batch[name][:, :2] = 0
    with eval_mode(objective):
        assert recipe.evaluate(objective, batch) == metrics
    batch["target_rgb"][:, 2:] = 1 - batch["target_rgb"][:, 2:]
    with eval_mode(objective):
        assert recipe.evaluate(objective, batch)["psnr"] != metrics["psnr"]


@pytest.mark.parametrize("stage", ["nerf", "mesh"])
def test_the_meta_step_has_the_same_model_without_values(stage, sphere_dataset):
    recipe = recipe_of(stage, sphere_dataset)
    meta_module, module = recipe.meta_step().module, recipe.build()
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    assert {name: value.shape for name, value in meta_module.state_dict().items()} == shapes
    assert all(value.is_meta for value in meta_module.parameters())


def test_lpips_view_by_view_equals_lpips_of_the_batch():
    torch.manual_seed(0)
    lpips = Lpips()
    for weight in lpips.linear:
        weight.data.uniform_(0, 1)
    images, targets = torch.rand(2, 2, 3, 16, 16)
    gradients = []
    for distance in (lpips, view_by_view(lpips)):
        leaf = images.clone().requires_grad_()
        values = distance(leaf, targets)
        assert values.shape == (2,)
        values.sum().backward()
        gradients.append((values.detach(), leaf.grad))
    for batched, single in zip(*gradients, strict=True):
        torch.testing.assert_close(single, batched)


def test_the_defaults_of_stage_two_are_the_published_ones():
    config = MeshTrainConfig(root="r", snapshot="s", out="o")
    assert (config.optimizer.learning_rate, config.optimizer.final_learning_rate) == (4e-5, 0)
    assert config.optimizer.gradient_clip == 1
    assert config.data.frame_size == 512
    changed = MeshTrainConfig.load(
        {"root": "r", "snapshot": "s", "out": "o", "optimizer": {"beta1": 0.8}}
    )
    assert changed.optimizer.learning_rate == 4e-5
    with pytest.raises(BadInput, match="model preset 'huge'"):
        config.model_copy(update={"preset": "huge"}).check()
