"""The fine-tuning of Zero123++: loss, gradients, condition dropout, latent cache, validation."""

import shutil

import pytest
import torch
from diffusers import DDPMScheduler
from torch.utils.data import default_collate

from core.errors import BadInput
from dataset.snapshots.snapshot import open_snapshot
from tests.support.sphere_datasets import write_sphere_dataset
from train.loop.validation import eval_mode
from train.models.zero123plus.latents import tile_views
from train.models.zero123plus.reference_attention import ReferenceUNet
from train.models.zero123plus.tiny import tiny_pipeline
from train.recipes.zero123plus import Zero123PlusRecipe
from train.recipes.zero123plus_config import Zero123PlusTrainConfig
from train.recipes.zero123plus_objective import snr_weights


@pytest.fixture(scope="module")
def spheres(tmp_path_factory):
    return write_sphere_dataset(
        tmp_path_factory.mktemp("spheres"), ["train"] * 4, rig="zero123plus", size=32
    )


@pytest.fixture
def recipe_of(spheres):
    root, snapshot = spheres

    def make(**changes):
        settings = {
            "root": root.uri,
            "snapshot": snapshot,
            "out": "/nowhere/run",
            "preset": "tiny",
            "batch_size": 2,
            "preview_size": 24,
            "data": {
                "view_size": 16,
                "query_size_min": 20,
                "query_size_max": 32,
                "condition_dropout": 0.0,
            },
            "sample": {"steps": 2, "margin": 0},
        }
        return Zero123PlusRecipe(Zero123PlusTrainConfig.load(settings | changes))

    return make


def dataset_of(recipe, spheres):
    root, snapshot = spheres
    return recipe.dataset(root, open_snapshot(root, snapshot).samples)


def batch_of(recipe, spheres, positions=(0, 1)):
    items = dataset_of(recipe, spheres)
    return default_collate([items[position] for position in positions])


def reference_loss(recipe, item, dropped):
    """Return the loss of one object, computed with diffusers, and the alpha of its timestep.

    The steps follow the technical report of Zero123++; alpha is the cumulative product.
    """
    pipeline = recipe.pipeline
    generator = torch.Generator().manual_seed(int(item["seed"]))
    vae, factor = pipeline.vae, pipeline.vae.config.scaling_factor
    query = torch.zeros_like(item["query"]) if dropped else item["query"]
    condition = vae.encode(query[None]).latent_dist.sample(generator)
    sheet = (tile_views(item["views"][None]) * 2 - 1) * 0.5 / 0.8
    latents = (vae.encode(sheet).latent_dist.sample(generator) * factor - 0.22) * 0.75
    tokens = pipeline.tokenizer("", padding="max_length", return_tensors="pt").input_ids
    prompt = pipeline.text_encoder(tokens).last_hidden_state
    if not dropped:
        embedding = pipeline.vision_encoder(item["query_clip"][None]).image_embeds
        ramp = torch.tensor(pipeline.config.ramping_coefficients)
        prompt = prompt + embedding[:, None] * ramp[:, None]
    noise = torch.randn(latents.shape[1:], generator=generator)[None]
    condition_noise = torch.randn(condition.shape[1:], generator=generator)[None]
    scheduler = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        prediction_type="v_prediction",
    )
    timestep = item["timestep"][None]
    prediction = ReferenceUNet(pipeline.unet)(
        scheduler.add_noise(latents, noise, timestep),
        timestep,
        prompt,
        scheduler.add_noise(condition, condition_noise, timestep),
    )
    target = scheduler.get_velocity(latents, noise, timestep)
    return torch.nn.functional.mse_loss(prediction, target), scheduler.alphas_cumprod[timestep]


@pytest.mark.parametrize("dropped", [False, True])
def test_the_loss_matches_diffusers_and_does_not_depend_on_the_batch(recipe_of, spheres, dropped):
    recipe = recipe_of()
    module, batch = recipe.build(), batch_of(recipe, spheres)
    batch["dropped"][:] = dropped
    with torch.no_grad():
        together = module(batch)
        expected_terms = []
        for row in range(2):
            item = {name: value[row] for name, value in batch.items()}
            expected, alpha = reference_loss(recipe, item, dropped)
            single = module({name: value[None] for name, value in item.items()})
            torch.testing.assert_close(single["loss"], expected, rtol=1e-4, atol=1e-5)
            expected_terms.append((float(expected), alpha))
    assert float(together["loss"]) == pytest.approx(
        sum(error for error, _ in expected_terms) / 2, rel=1e-4
    )
    assert together["v"] == together["loss"]
    weighted = recipe_of(loss={"min_snr": 5.0})
    with torch.no_grad():
        terms = weighted.build()(batch)
    weights = [float(snr_weights(alpha, 5.0)) for _, alpha in expected_terms]
    mean = (
        sum(weight * error for weight, (error, _) in zip(weights, expected_terms, strict=True)) / 2
    )
    assert float(terms["loss"]) == pytest.approx(mean, rel=1e-4)
    assert float(terms["v"]) == pytest.approx(float(together["v"]), rel=1e-5)


def test_min_snr_weights_are_those_of_the_paper_for_v_prediction():
    alphas = torch.tensor([0.5, 0.9, 0.1])
    # SNR 1, 9 and 1/9 with gamma 5: 1 / 2, 5 / 10, (1/9) / (10/9).
    torch.testing.assert_close(snr_weights(alphas, 5.0), torch.tensor([0.5, 0.5, 0.1]))


def test_a_dropped_query_has_no_effect_and_the_unconditional_level_has_one(recipe_of, spheres):
    grey, black = recipe_of(), recipe_of(unconditional_level=0.0)
    module, batch = grey.build(), batch_of(grey, spheres)
    other = dict(batch, query=torch.rand_like(batch["query"]), query_clip=batch["query_clip"] * 0)
    with torch.no_grad():
        assert module(batch)["loss"] != module(other)["loss"]
        for each in (batch, other):
            each["dropped"] = torch.tensor([True, True])
        assert module(batch)["loss"] == module(other)["loss"]
        assert module(batch)["loss"] != black.build()(batch)["loss"]


def test_only_the_unet_is_trained_and_saved(recipe_of, spheres):
    recipe = recipe_of(ema=0.9)
    module = recipe.build()
    module(batch_of(recipe, spheres))["loss"].backward()
    for name, parameter in module.named_parameters():
        assert name.startswith("denoiser.unet.")
        assert parameter.grad.isfinite().all()
    assert any(parameter.grad.abs().max() > 0 for parameter in module.parameters())
    saved = {name.partition(".")[0] for name in module.state_dict()}
    assert saved == {"denoiser", "ema"}
    for part in (recipe.pipeline.vae, recipe.pipeline.vision_encoder):
        assert all(weight.grad is None for weight in part.parameters())


def test_bfloat16_is_close_to_float32(recipe_of, spheres):
    exact, rounded = recipe_of(), recipe_of(precision="bf16", ema=0.9)
    batch = batch_of(exact, spheres)
    with torch.no_grad():
        expected = exact.build()(batch)["loss"]
        module = rounded.build().bfloat16()
        loss = module(batch)["loss"]
    assert loss.dtype == torch.float32
    assert rounded.pipeline.vae.dtype == torch.bfloat16
    assert float(loss) == pytest.approx(float(expected), rel=0.02)
    assert loss != expected
    root, snapshot = spheres
    items = rounded.validation_dataset(root, open_snapshot(root, snapshot).samples)
    with eval_mode(module):
        metrics = rounded.evaluate(module, default_collate([items[0]]))
    assert all(metric.dtype == torch.float32 for metric in metrics.values())
    assert all(metric.isfinite() for metric in metrics.values())


@pytest.mark.parametrize("query_size_min", [20, 32])
def test_the_latent_cache_does_not_change_the_loss(recipe_of, spheres, tmp_path, query_size_min):
    sizes = {"view_size": 16, "query_size_min": query_size_min, "query_size_max": 32}
    uncached = recipe_of(data=sizes)
    cached = [recipe_of(data=sizes, latent_cache=str(tmp_path)) for _ in range(2)]
    with torch.no_grad():
        expected = uncached.build()(batch_of(uncached, spheres))["loss"]
        for is_second, recipe in enumerate(cached):
            module, batch = recipe.build(), batch_of(recipe, spheres)
            assert batch["cached"].tolist() == [bool(is_second)] * 2
            assert (batch["views"] == 0).all() == bool(is_second)
            torch.testing.assert_close(module(batch)["loss"], expected, rtol=1e-5, atol=0)
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 2
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == files
    # The cache does not have two objects, and one file is damaged: these are encoded and stored.
    files[0].write_bytes(files[0].read_bytes()[:40])
    recipe, positions = recipe_of(data=sizes, latent_cache=str(tmp_path)), (0, 1, 2, 3)
    module, batch = recipe.build(), batch_of(recipe, spheres, positions)
    with torch.no_grad():
        assert batch["cached"].sum() == 1
        expected = uncached.build()(batch_of(uncached, spheres, positions))["loss"]
        torch.testing.assert_close(module(batch)["loss"], expected, rtol=1e-5, atol=0)
    assert batch_of(recipe, spheres, positions)["cached"].all()


def test_the_latent_cache_depends_on_the_weights_and_sizes(recipe_of, spheres, tmp_path):
    cache = {"latent_cache": str(tmp_path)}
    first = recipe_of(**cache)
    module = first.build()
    with torch.no_grad():
        module(batch_of(first, spheres))
    for changes in ({"seed": 1}, {"data": {"view_size": 8, "query_size_min": 20}}):
        other = recipe_of(**cache, **changes)
        other.build()
        assert not batch_of(other, spheres, (0, 1, 2, 3))["cached"].any()


def test_validation_is_reproducible_and_previews_show_queries_targets_and_samples(
    recipe_of, spheres
):
    root, snapshot = spheres
    recipe = recipe_of(ema=0.5)
    module = recipe.build()
    items = recipe.validation_dataset(root, open_snapshot(root, snapshot).samples)
    batch = default_collate([items[1]])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with eval_mode(module):
        metrics = recipe.evaluate(module, batch)
        again = recipe.evaluate(module, batch)
    names = ("background_deviation", "background_deviation_95", "background_spread")
    assert set(metrics) == {"v", "psnr", *names}
    assert metrics == again
    assert 0 < metrics["background_deviation"] <= metrics["background_deviation_95"] <= 1
    with eval_mode(module):
        items = recipe.preview_dataset(root, open_snapshot(root, snapshot).samples)
        sheet = recipe.preview(module, default_collate([items[2]]))
    assert sheet.size == (48 + 6 * 24, 3 * 24)
    pixels = torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8).view(72, 192, 3)
    assert pixels[2, 50].tolist() == pixels[26, 50].tolist() == [255] * 3
    for row in range(3):
        assert pixels[24 * row : 24 * row + 24, 48:72].float().std() > 1
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init": "/nowhere/pipeline"}, r"Zero123\+\+ weights /nowhere/pipeline, .*model_index"),
        ({"init": "missing/model"}, r"missing/model, .*download the repository into the hub's"),
        ({"data": {"view_size": 15}}, r"view-size 15 is not a multiple of 2"),
        ({"ema": 0.9, "zero_stage": 3}, "--ema needs --zero-stage 0, 1 or 2"),
    ],
)
def test_an_invalid_configuration_is_one_line_before_anything_is_written(
    recipe_of, changes, message
):
    with pytest.raises(BadInput, match=message) as error:
        recipe_of(**changes).config.check()
    assert "\n" not in str(error.value)


def test_a_pipeline_with_a_missing_part_or_another_prediction_type_is_named(recipe_of, tmp_path):
    tiny_pipeline(0).save_pretrained(tmp_path)
    config = recipe_of(init=str(tmp_path)).config
    config.check()
    assert recipe_of(preset="published").config.source == "sudo-ai/zero123plus-v1.2"
    scheduler = tmp_path / "scheduler" / "scheduler_config.json"
    original = scheduler.read_text()
    scheduler.write_text(original.replace("v_prediction", "epsilon"))
    with pytest.raises(BadInput, match="prediction_type epsilon"):
        config.check()
    scheduler.write_text(original)
    shutil.rmtree(tmp_path / "vae")
    with pytest.raises(BadInput, match=rf"{tmp_path}, vae: .*config\.json"):
        config.check()
