"""Zero123++: against its oracle, and the properties of its pipeline."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from diffusers.schedulers import scheduling_euler_ancestral_discrete
from PIL import Image
from safetensors.torch import load_file

from core.errors import BadInput
from train.models.recompute import recompute_blocks
from train.models.zero123plus import latents as ranges
from train.models.zero123plus import sampling as zero123plus_sampling
from train.models.zero123plus.pipeline import load_zero123plus
from train.models.zero123plus.reference_attention import ReferenceUNet
from train.models.zero123plus.sampling import denoising_steps, first_latents, sampling_scheduler
from train.models.zero123plus.tiny import tiny_pipeline

FAST = {"num_inference_steps": 2, "view_size": 16}


@pytest.fixture
def expected(oracle):
    return oracle("zero123plus")


@pytest.fixture
def expected_unet(expected):
    unet = UNet2DConditionModel(**expected.config["unet"])
    unet.load_state_dict(expected.with_prefix("state."))
    return ReferenceUNet(unet)


@pytest.fixture(scope="module")
def pipeline():
    pipeline = tiny_pipeline(0)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def query():
    """Return a picture of a red and a blue patch on a transparent background."""
    image = Image.new("RGBA", (40, 40))
    image.paste("red", (4, 4, 18, 30))
    image.paste("blue", (22, 10, 36, 36))
    return image


@pytest.fixture(scope="module")
def saved(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zero123plus")
    pipeline.save_pretrained(folder)
    return folder


def test_ranges_prompt_and_sheet_match_the_oracle(expected):
    latents, images = expected["in.latents"], expected["in.images"]
    expected.check(ranges.scale_latents(latents), "out.scale_latents")
    expected.check(ranges.unscale_latents(latents), "out.unscale_latents")
    expected.check(ranges.scale_image(images), "out.scale_image")
    expected.check(ranges.unscale_image(images), "out.unscale_image")
    expected.check(ranges.image_to_vae(images), "out.target_vae_input")
    target = ranges.latents_to_target(expected["in.vae_sample"], 0.18215)
    expected.check(target, "out.target_latents")
    torch.testing.assert_close(
        ranges.latents_from_target(target, 0.18215), expected["in.vae_sample"]
    )
    torch.testing.assert_close(ranges.image_from_vae(ranges.image_to_vae(images)), images)
    prompt = ranges.ramped_prompt(
        expected["in.text_embeds"], expected["in.global_embeds"], expected["in.ramp"]
    )
    expected.check(prompt, "out.prompt")
    sheet = ranges.tile_views(expected["in.views"])
    expected.check(sheet, "out.tiled")
    assert torch.equal(ranges.untile_views(sheet), expected["in.views"])


def test_noise_and_v_match_the_oracle(expected):
    config = expected.config["scheduler"]
    alphas = EulerAncestralDiscreteScheduler(**config).alphas_cumprod
    expected.check(alphas, "out.alphas_cumprod_train")
    expected.check(alphas, "out.alphas_cumprod_scheduler")
    latents, noise = expected["in.latents"], expected["in.noise"]
    timesteps = expected["in.timesteps"].long()
    noisy = ranges.add_noise(latents, noise, alphas, timesteps)
    expected.check(noisy, "out.noisy_from_scheduler")
    torch.testing.assert_close(noisy, DDPMScheduler(**config).add_noise(latents, noise, timesteps))
    v = ranges.v_target(latents, noise, alphas, timesteps)
    expected.check(v, "out.v_target")
    clean = ranges.clean_from_v(noisy, v, alphas, timesteps)
    expected.check(clean, "out.x0_from_v")
    torch.testing.assert_close(clean, latents, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_training_step_matches_the_oracle(expected, expected_unet, checkpointing):
    unet = expected_unet.unet
    if checkpointing:
        recompute_blocks(unet)
    noisy, timesteps = expected["in.noisy_latents"], expected["in.timesteps"].long()
    prompt = expected["in.encoder_hidden_states"]
    alphas = expected["out.alphas_cumprod_train"]
    reference = ranges.add_noise(
        expected["in.cond_lat"], expected["in.cond_noise"], alphas, timesteps
    )
    expected.check(reference, "out.noisy_cond_train")
    expected.check(unet(noisy, timesteps, prompt).sample, "out.v_pred_plain")
    tokens = expected_unet.reference_tokens(reference, timesteps, prompt)
    assert sorted(tokens) == sorted(expected.with_prefix("out.ref."))
    for name, values in tokens.items():
        expected.check(values, f"out.ref.{name}")
    v = expected_unet(noisy, timesteps, prompt, reference)
    expected.check(v, "out.v_pred_train")
    loss = torch.nn.functional.mse_loss(v, expected["out.v_target"])
    expected.check(loss, "out.loss")
    loss.backward()
    for name in expected.with_prefix("out.grad."):
        expected.check(unet.get_parameter(name).grad, f"out.grad.{name}")


def test_guided_sampling_matches_the_oracle(expected, expected_unet, monkeypatch):
    """Sampling is run with the recorded random numbers."""
    recorded = {"first": [expected["in.init_noise"]]}
    recorded["condition"] = [noise[None] for noise in expected["in.cond_noise_steps"]]
    recorded["step"] = list(expected["in.step_noise"])

    def replay(kind):
        def draw_recorded(shape, **_):
            noise = recorded[kind].pop(0)
            assert noise.shape == tuple(shape)
            return noise

        return draw_recorded

    scheduler = sampling_scheduler(
        expected.config["scheduler"] | {"timestep_spacing": "linspace"},
        expected.config["steps"],
        torch.device("cpu"),
    )
    expected.check(scheduler.timesteps, "out.timesteps_eval")
    expected.check(scheduler.sigmas, "out.sigmas_eval")
    monkeypatch.setattr(zero123plus_sampling, "randn_tensor", replay("first"))
    condition = expected["in.cond_lat_pair"]
    latents = first_latents(expected["in.init_noise"].shape, scheduler, [], condition)
    monkeypatch.setattr(zero123plus_sampling, "randn_tensor", replay("condition"))
    monkeypatch.setattr(scheduling_euler_ancestral_discrete, "randn_tensor", replay("step"))
    recorder = SimpleNamespace(references=[], outputs=[])

    def record(_, inputs, output):
        recorder.references.append(inputs[3])
        recorder.outputs.append(output)

    expected_unet.register_forward_hook(record)
    with torch.no_grad():
        after = list(
            denoising_steps(
                expected_unet,
                scheduler,
                latents,
                expected["in.pair_embeds"],
                condition,
                expected.config["guidance"],
                [],
            )
        )
    expected.check(recorder.references[0], "out.noisy_cond_eval_first")
    expected.check(torch.stack(recorder.outputs), "out.v_pred_eval_steps")
    expected.check(torch.stack(after), "out.latents_steps")
    assert not any(recorded.values())


def test_each_query_gives_six_views_that_depend_only_on_its_seed(pipeline, query):
    both = pipeline([query, query.rotate(90)], [3, 4], **FAST)
    assert both.views.shape == (2, 6, 3, 16, 16)
    assert [sheet.size for sheet in both.images] == [(32, 48)] * 2
    last_tile = np.asarray(both.images[0].crop((16, 32, 32, 48)))
    last_view = (both.views[0, 5].permute(1, 2, 0) * 255).round()
    assert np.array_equal(last_tile, last_view.numpy())
    single = pipeline([query], [3], **FAST).views
    torch.testing.assert_close(single[0], both.views[0], atol=1e-4, rtol=1e-4)
    assert torch.equal(pipeline([query], [3], **FAST).views, single)
    assert (pipeline([query], [4], **FAST).views - single).abs().max() > 0.01


def test_the_reference_changes_the_output_through_self_attention_only(pipeline):
    torch.manual_seed(0)
    unet = ReferenceUNet(pipeline.unet)
    latents, prompt = torch.randn(1, 4, 24, 16), torch.randn(1, 8, 32)
    timesteps = torch.tensor([500])
    with torch.no_grad():
        plain = pipeline.unet(latents, timesteps, prompt).sample
        first, second = (
            unet(latents, timesteps, prompt, torch.randn(1, 4, 8, 8)) for _ in range(2)
        )
        tokens = unet.reference_tokens(torch.randn(1, 4, 8, 8), timesteps, prompt)
    assert (first - second).abs().max() > 1e-4
    assert (first - plain).abs().max() > 1e-4
    assert {name.rpartition(".")[2] for name in tokens} == {"attn1"}


def test_guidance_and_the_unconditional_level_change_the_views(pipeline, query):
    guided = pipeline([query], [3], **FAST).views
    assert (pipeline([query], [3], guidance_scale=1, **FAST).views - guided).abs().max() > 1e-3
    assert (
        pipeline([query], [3], unconditional_level=0.0, **FAST).views - guided
    ).abs().max() > 1e-4


def test_targets_are_scaled_and_conditions_are_not(pipeline, query):
    views = torch.rand(2, 6, 3, 16, 16)
    generators = [[torch.Generator().manual_seed(seed) for seed in (1, 2)] for _ in range(2)]
    targets = pipeline.encode_targets(views, generators[0])
    sheets = ranges.image_to_vae(ranges.tile_views(views))
    unscaled = pipeline.encode_condition(sheets, generators[1])
    factor = pipeline.vae.config.scaling_factor
    torch.testing.assert_close(targets, (unscaled * factor - 0.22) * 0.75)
    assert pipeline.decode_targets(targets).shape == views.shape
    pixels, clip = pipeline.query_pixels([query])
    assert pixels.shape == (1, 3, 16, 16)
    assert clip.shape == (1, 3, 28, 28)
    torch.testing.assert_close(pixels[0, :, 0, 0], torch.full((3,), 0.625))  # transparent: white
    assert torch.equal(pipeline.unconditional_pixels(pixels, 0.5), torch.zeros_like(pixels))


def test_only_the_unet_gets_gradients(pipeline, query):
    unet = ReferenceUNet(pipeline.unet)
    pixels, clip = pipeline.query_pixels([query])
    prompt = pipeline.encode_prompt(clip)
    latents = pipeline.encode_targets(torch.rand(1, 6, 3, 16, 16))
    alphas, timesteps = pipeline.scheduler.alphas_cumprod, torch.tensor([700])
    noise, condition = torch.randn_like(latents), pipeline.encode_condition(pixels)
    noisy = ranges.add_noise(latents, noise, alphas, timesteps)
    reference = ranges.add_noise(condition, torch.randn_like(condition), alphas, timesteps)
    v = unet(noisy, timesteps, prompt, reference)
    (v - ranges.v_target(latents, noise, alphas, timesteps)).square().mean().backward()
    try:
        assert all(weight.grad is not None for weight in pipeline.unet.parameters())
        assert pipeline.unet.conv_in.weight.grad.abs().max() > 0
        for part in (pipeline.vae, pipeline.text_encoder, pipeline.vision_encoder):
            assert all(weight.grad is None for weight in part.parameters())
    finally:
        pipeline.unet.zero_grad()


def test_the_pipeline_saves_and_loads_the_published_layout(pipeline, saved, query):
    index = json.loads((saved / "model_index.json").read_text())
    assert index["_class_name"] == "Zero123PlusPipeline"
    assert index["ramping_coefficients"] == [token / 8 for token in range(8)]
    for part in ("clip", "vae"):
        assert index[f"feature_extractor_{part}"] == ["transformers", "CLIPImageProcessor"]
    for name in ("vocab.json", "merges.txt"):
        assert (saved / "tokenizer" / name).is_file()
    text = load_file(saved / "text_encoder" / "model.safetensors")
    assert {key.partition(".")[0] for key in text} == {"text_model"}
    loaded = load_zero123plus(saved)
    loaded.set_progress_bar_config(disable=True)
    for part in ("unet", "vae", "text_encoder", "vision_encoder"):
        saved_state, loaded_state = (
            one.components[part].state_dict() for one in (pipeline, loaded)
        )
        assert all(torch.equal(loaded_state[name], value) for name, value in saved_state.items())
    # At other memory addresses, sums may be computed in another order.
    views = [one([query], [3], **FAST).views for one in (pipeline, loaded)]
    torch.testing.assert_close(views[1], views[0], atol=1e-4, rtol=1e-4)


def test_a_tokenizer_needs_only_vocabulary_merges_and_settings(saved, tmp_path):
    """The published folder, written by transformers 4, has only these files."""
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((saved / "tokenizer" / name).read_bytes())
    tokenizer = type(tiny_pipeline(0).tokenizer).from_pretrained(tmp_path)
    tokens = tokenizer("", padding="max_length").input_ids
    start, end, pad = (
        tokenizer.convert_tokens_to_ids(word) for word in ("<|startoftext|>", "<|endoftext|>", "!")
    )
    assert tokens == [start, end, *[pad] * 6]


def test_invalid_inputs_are_one_clear_line(pipeline, query, tmp_path):
    with pytest.raises(BadInput, match=r"model_index\.json"):
        load_zero123plus(tmp_path)
    with pytest.raises(BadInput, match="2 seeds"):
        pipeline([query], [1, 2])
    with pytest.raises(BadInput, match="view_size 15"):
        pipeline([query], [1], view_size=15)
    with pytest.raises(BadInput, match="7 ramping_coefficients"):
        type(pipeline)(**pipeline.components, ramping_coefficients=[0.0] * 7)
