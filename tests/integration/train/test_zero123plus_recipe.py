"""The fine-tune of Zero123++ as it is trained: loss, gradients, drops, cache, validation."""

import shutil

import pytest
import torch
from diffusers import DDPMScheduler
from torch.utils.data import default_collate

from core.errors import BadInput
from dataset.snapshots.snapshot import open_snapshot
from tests.support.spheres import write_spheres
from train.loop.validation import eval_mode
from train.models.zero123plus.latents import tile_views
from train.models.zero123plus.reference_attention import ReferenceUNet
from train.models.zero123plus.tiny import tiny_pipeline
from train.recipes.zero123plus import Zero123PlusRecipe
from train.recipes.zero123plus_config import Zero123PlusTrainConfig
from train.recipes.zero123plus_objective import snr_weights


@pytest.fixture(scope="module")
def spheres(tmp_path_factory):
    return write_spheres(
        tmp_path_factory.mktemp("seven"), ["train"] * 4, rig="zero123plus", size=32
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


def items_of(recipe, spheres):
    root, snapshot = spheres
    return recipe.dataset(root, open_snapshot(root, snapshot).samples)


def batch_of(recipe, spheres, positions=(0, 1)):
    items = items_of(recipe, spheres)
    return default_collate([items[position] for position in positions])


def plain_loss(recipe, one, dropped):
    """The loss of one object with diffusers' own parts and scheduler, as the report has it."""
    pipeline = recipe.pipeline
    generator = torch.Generator().manual_seed(int(one["seed"]))
    vae, factor = pipeline.vae, pipeline.vae.config.scaling_factor
    seen = torch.zeros_like(one["query"]) if dropped else one["query"]
    condition = vae.encode(seen[None]).latent_dist.sample(generator)
    sheet = (tile_views(one["views"][None]) * 2 - 1) * 0.5 / 0.8
    latents = (vae.encode(sheet).latent_dist.sample(generator) * factor - 0.22) * 0.75
    tokens = pipeline.tokenizer("", padding="max_length", return_tensors="pt").input_ids
    prompt = pipeline.text_encoder(tokens).last_hidden_state
    if not dropped:
        seen = pipeline.vision_encoder(one["query_clip"][None]).image_embeds
        ramp = torch.tensor(pipeline.config.ramping_coefficients)
        prompt = prompt + seen[:, None] * ramp[:, None]
    noise = torch.randn(latents.shape[1:], generator=generator)[None]
    other = torch.randn(condition.shape[1:], generator=generator)[None]
    scheduler = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        prediction_type="v_prediction",
    )
    timestep = one["timestep"][None]
    found = ReferenceUNet(pipeline.unet)(
        scheduler.add_noise(latents, noise, timestep),
        timestep,
        prompt,
        scheduler.add_noise(condition, other, timestep),
    )
    target = scheduler.get_velocity(latents, noise, timestep)
    return torch.nn.functional.mse_loss(found, target), scheduler.alphas_cumprod[timestep]


@pytest.mark.parametrize("dropped", [False, True])
def test_the_loss_is_that_of_diffusers_and_an_object_is_on_its_own(recipe_of, spheres, dropped):
    recipe = recipe_of()
    module, batch = recipe.build(), batch_of(recipe, spheres)
    batch["dropped"][:] = dropped
    with torch.no_grad():
        together = module(batch)
        each = []
        for place in range(2):
            one = {name: value[place] for name, value in batch.items()}
            expected, alpha = plain_loss(recipe, one, dropped)
            alone = module({name: value[None] for name, value in one.items()})
            torch.testing.assert_close(alone["loss"], expected, rtol=1e-4, atol=1e-5)
            each.append((float(expected), alpha))
    assert float(together["loss"]) == pytest.approx(sum(e for e, _ in each) / 2, rel=1e-4)
    assert together["v"] == together["loss"]
    weighted = recipe_of(loss={"min_snr": 5.0})
    with torch.no_grad():
        found = weighted.build()(batch)
    weights = [float(snr_weights(alpha, 5.0)) for _, alpha in each]
    mean = sum(weight * error for weight, (error, _) in zip(weights, each, strict=True)) / 2
    assert float(found["loss"]) == pytest.approx(mean, rel=1e-4)
    assert float(found["v"]) == pytest.approx(float(together["v"]), rel=1e-5)


def test_min_snr_weights_are_the_papers_for_v():
    alphas = torch.tensor([0.5, 0.9, 0.1])
    # SNR 1, 9 and 1/9 with gamma 5: 1 / 2, 5 / 10, (1/9) / (10/9).
    torch.testing.assert_close(snr_weights(alphas, 5.0), torch.tensor([0.5, 0.5, 0.1]))


def test_a_dropped_query_leaves_no_trace_and_the_blank_is_a_choice(recipe_of, spheres):
    grey, black = recipe_of(), recipe_of(unconditional_level=0.0)
    module, batch = grey.build(), batch_of(grey, spheres)
    other = dict(batch, query=torch.rand_like(batch["query"]), query_clip=batch["query_clip"] * 0)
    with torch.no_grad():
        assert module(batch)["loss"] != module(other)["loss"]
        for one in (batch, other):
            one["dropped"] = torch.tensor([True, True])
        assert module(batch)["loss"] == module(other)["loss"]
        assert module(batch)["loss"] != black.build()(batch)["loss"]


def test_only_the_unet_is_trained_and_kept(recipe_of, spheres):
    recipe = recipe_of(ema=0.9)
    module = recipe.build()
    module(batch_of(recipe, spheres))["loss"].backward()
    for name, parameter in module.named_parameters():
        assert name.startswith("denoiser.unet.")
        assert parameter.grad.isfinite().all()
    assert any(parameter.grad.abs().max() > 0 for parameter in module.parameters())
    kept = {name.partition(".")[0] for name in module.state_dict()}
    assert kept == {"denoiser", "ema"}
    for part in (recipe.pipeline.vae, recipe.pipeline.vision_encoder):
        assert all(weight.grad is None for weight in part.parameters())


def test_bfloat16_is_close_to_float32(recipe_of, spheres):
    exact, rounded = recipe_of(), recipe_of(precision="bf16", ema=0.9)
    batch = batch_of(exact, spheres)
    with torch.no_grad():
        expected = exact.build()(batch)["loss"]
        module = rounded.build().bfloat16()
        found = module(batch)["loss"]
    assert found.dtype == torch.float32
    assert rounded.pipeline.vae.dtype == torch.bfloat16
    assert float(found) == pytest.approx(float(expected), rel=0.02)
    assert found != expected
    root, snapshot = spheres
    items = rounded.validation_dataset(root, open_snapshot(root, snapshot).samples)
    with eval_mode(module):
        metrics = rounded.evaluate(module, default_collate([items[0]]))
    assert all(metric.dtype == torch.float32 for metric in metrics.values())
    assert all(metric.isfinite() for metric in metrics.values())


@pytest.mark.parametrize("query_size_min", [20, 32])
def test_with_a_cache_the_numbers_are_the_same(recipe_of, spheres, tmp_path, query_size_min):
    sizes = {"view_size": 16, "query_size_min": query_size_min, "query_size_max": 32}
    plain = recipe_of(data=sizes)
    kept = [recipe_of(data=sizes, latent_cache=str(tmp_path)) for _ in range(2)]
    with torch.no_grad():
        expected = plain.build()(batch_of(plain, spheres))["loss"]
        for turn, recipe in enumerate(kept):
            module, batch = recipe.build(), batch_of(recipe, spheres)
            assert batch["cached"].tolist() == [bool(turn)] * 2
            assert (batch["views"] == 0).all() == bool(turn)
            torch.testing.assert_close(module(batch)["loss"], expected, rtol=1e-5, atol=0)
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 2
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == files
    # One object is new, and one file is damaged: both are made again.
    files[0].write_bytes(files[0].read_bytes()[:40])
    recipe, positions = recipe_of(data=sizes, latent_cache=str(tmp_path)), (0, 1, 2, 3)
    module, batch = recipe.build(), batch_of(recipe, spheres, positions)
    with torch.no_grad():
        assert batch["cached"].sum() == 1
        expected = plain.build()(batch_of(plain, spheres, positions))["loss"]
        torch.testing.assert_close(module(batch)["loss"], expected, rtol=1e-5, atol=0)
    assert batch_of(recipe, spheres, positions)["cached"].all()


def test_a_cache_of_other_weights_or_sizes_is_another(recipe_of, spheres, tmp_path):
    where = {"latent_cache": str(tmp_path)}
    first = recipe_of(**where)
    module = first.build()
    with torch.no_grad():
        module(batch_of(first, spheres))
    for changes in ({"seed": 1}, {"data": {"view_size": 8, "query_size_min": 20}}):
        other = recipe_of(**where, **changes)
        other.build()
        assert not batch_of(other, spheres, (0, 1, 2, 3))["cached"].any()


def test_validation_judges_and_previews_show_queries_targets_and_samples(recipe_of, spheres):
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
        ({"init": "nobody/nothing"}, r"nobody/nothing, .*download the repository into the hub's"),
        ({"data": {"view_size": 15}}, r"view-size 15 is not a multiple of 2"),
        ({"ema": 0.9, "zero_stage": 3}, "--ema needs --zero-stage 0, 1 or 2"),
    ],
)
def test_what_does_not_fit_is_one_line_before_anything_is_written(recipe_of, changes, message):
    with pytest.raises(BadInput, match=message) as error:
        recipe_of(**changes).config.check()
    assert "\n" not in str(error.value)


def test_a_pipeline_without_a_part_or_with_another_prediction_is_named(recipe_of, tmp_path):
    tiny_pipeline(0).save_pretrained(tmp_path)
    config = recipe_of(init=str(tmp_path)).config
    config.check()
    assert recipe_of(preset="published").config.source == "sudo-ai/zero123plus-v1.2"
    scheduler = tmp_path / "scheduler" / "scheduler_config.json"
    kept = scheduler.read_text()
    scheduler.write_text(kept.replace("v_prediction", "epsilon"))
    with pytest.raises(BadInput, match="prediction_type epsilon"):
        config.check()
    scheduler.write_text(kept)
    shutil.rmtree(tmp_path / "vae")
    with pytest.raises(BadInput, match=rf"{tmp_path}, vae: .*config\.json"):
        config.check()
