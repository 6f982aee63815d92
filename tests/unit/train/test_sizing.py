"""The estimate of operations, memory and time of a run, against the real model and step."""

import functools

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from core.errors import BadInput
from train.estimate.sizing import RunSize, find_device, size_run
from train.estimate.step_cost import _count, _Meter, count_step
from train.loop.preflight import _check_memory
from train.monitoring.utilisation import Utilisation
from train.recipes.nerf import NerfRecipe, NerfTrainConfig

MODEL = {"encoder": {"num_layers": 1}, "transformer": {"num_layers": 1}}
SMALL = {
    "root": "",
    "snapshot": "",
    "out": "",
    "preset": "tiny",
    "batch_size": 2,
    "model": MODEL | {"nerf": {"samples_per_ray": 8, "rays_per_chunk": 100}},
    "loss": {"lpips": 0},
    "data": {
        "num_inputs": 2,
        "num_targets": 1,
        "patch_size": 8,
        "target_size_min": 12,
        "target_size_max": 16,
    },
}


def small_recipe(**changes) -> NerfRecipe:
    return NerfRecipe(NerfTrainConfig.load(SMALL | changes))


@functools.cache
def small_size() -> RunSize:
    """Return the size of the small recipe with its default settings."""
    return size_run(small_recipe())


def batch(objects: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    cameras = torch.eye(4).repeat(objects, 3, 1, 1)
    cameras[..., 2, 3] = 2.5
    lenses = torch.tensor([1.0, 1, 0.5, 0.5]).repeat(objects, 3, 1)
    return {
        "images": torch.rand(objects, 2, 3, 64, 64, generator=generator),
        "camera_to_world": cameras[:, :2],
        "intrinsics": lenses[:, :2],
        "target_rgb": torch.rand(objects, 3, 3, 8, 8, generator=generator),
        "target_alpha": torch.ones(objects, 3, 1, 8, 8),
        "target_camera_to_world": cameras,
        "target_intrinsics": lenses,
        "seed": torch.arange(objects),
    }


# torch's counter does not know the CPU's fused attention, and would count 0 operations for it.
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)
    ),
}


def test_estimated_operations_are_those_of_a_real_step():
    size = small_size()
    module, step = small_recipe().build(), batch(2)
    forward, backward = (FlopCounterMode(display=False, custom_mapping=ATTENTION) for _ in "fb")
    with forward:
        loss = module(step)["loss"]
    with backward:
        loss.backward()
    assert sum(size.forward.values()) == forward.get_total_flops()
    assert size.backward == backward.get_total_flops()
    assert set(size.forward) == {"encoder", "transformer", "synthesizer"}


def test_estimated_memory_is_that_of_a_real_step():
    """The meter gives almost the same on real tensors: only attention stores other tensors."""
    module, step = small_recipe().build(), batch(2)
    for parameter in module.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    with _Meter() as meter, sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        module(step)["loss"].backward()
    assert small_size().memory["activations"] == pytest.approx(meter.peak, rel=0.1)


def test_activation_checkpointing_needs_less_memory_and_more_operations():
    layers = {"encoder": {"num_layers": 4}, "transformer": {"num_layers": 8}}
    stored, recomputed = (
        size_run(small_recipe(preset="base", model=layers, activation_checkpointing=checkpointing))
        for checkpointing in (False, True)
    )
    assert recomputed.memory["activations"] < 0.4 * stored.memory["activations"]
    assert recomputed.backward > 1.1 * stored.backward
    assert recomputed.forward == stored.forward


def test_utilisation_does_not_count_recomputed_operations():
    """Recomputation does not count, because the operations of the model stay the same."""
    base = {"peak_flops": 1e12, "num_workers": 1}
    stored = {"model": MODEL | {"nerf": {"samples_per_ray": 8, "checkpoint_chunks": False}}}
    variants = base, base | {"activation_checkpointing": True}, base | stored
    utilisations = {
        Utilisation(small_recipe(**changes)).metrics(2.0)["mfu"] for changes in variants
    }
    assert len(utilisations) == 1
    forward = sum(size_run(small_recipe(**base, **stored)).forward.values())
    # The backward pass of fused attention has 5 products, the forward pass 2.
    assert utilisations.pop() == pytest.approx(3 * forward / 2.0 / 1e12, rel=0.1)


def test_a_step_that_does_not_fit_into_memory_is_an_error_with_its_parts():
    with pytest.raises(BadInput, match=r"activations 0\.\d.* has 0\.1 GB: a smaller --micro-batch"):
        _check_memory(small_recipe(batch_size=16), 1e8)
    _check_memory(small_recipe(), 1e11)


def test_larger_micro_batches_are_extrapolated_linearly():
    meta_step = small_recipe().meta_step()
    extrapolated, counted = count_step(meta_step, 4), _count(meta_step, 4)
    assert extrapolated.backward == counted.backward
    assert extrapolated.forward == counted.forward
    assert extrapolated.activation_bytes == pytest.approx(counted.activation_bytes, rel=0.05)


def test_estimated_parameters_are_those_of_the_model():
    size, model = small_size(), small_recipe().build().model
    for part in ("encoder", "transformer", "synthesizer"):
        assert size.parameters[part] == sum(p.numel() for p in getattr(model, part).parameters())
    assert len(size.parameters) == 3
    assert size.frozen == {}


def test_the_largest_model_is_sized_without_its_weights():
    """LPIPS is included, and none of its files is read."""
    config = NerfTrainConfig(root="", snapshot="", out="", preset="large", micro_batch=1)
    meta_step = NerfRecipe(config).meta_step()
    assert all(parameter.is_meta for parameter in meta_step.module.parameters())
    size = size_run(NerfRecipe(config))
    # Table 1 of the paper: 378M. LPIPS has VGG16's convolutions and five linear layers.
    assert round(sum(size.parameters.values()) / 1e6) == 378
    assert size.frozen == {"lpips": 14_714_688 + 1472}
    assert size.forward["lpips"] > 0


@pytest.mark.parametrize(
    ("changes", "bytes_each"),
    [
        # Bytes per parameter and rank: weights, gradients, optimizer.
        ({"zero_stage": 0}, (4, 4, 8)),
        ({"zero_stage": 1}, (4, 4, 12)),
        ({"zero_stage": 1, "num_workers": 2}, (4, 4, 6)),
        ({"zero_stage": 2, "num_workers": 2}, (4, 2, 6)),
        ({"zero_stage": 1, "num_workers": 2, "precision": "bf16"}, (2, 2, 6)),
        ({"zero_stage": 0, "precision": "bf16"}, (2, 2, 12)),
    ],
)
def test_zero_divides_the_state_over_the_ranks(changes, bytes_each):
    size = size_run(small_recipe(micro_batch=1, **changes))
    num_parameters = sum(size.parameters.values())
    estimated = [
        size.memory[name] / num_parameters for name in ("weights", "gradients", "optimizer")
    ]
    assert estimated == pytest.approx(bytes_each)
    assert size.checkpoint_bytes / num_parameters == pytest.approx(
        bytes_each[0] + bytes_each[2] * (changes.get("num_workers", 1))
    )


def test_devices_are_given_by_name_or_by_peak():
    assert find_device("h100").peak["bf16"] > 2 * find_device("a100").peak["bf16"]
    assert find_device("120").peak["fp32"] == 120e12
    assert 1e8 < find_device("cpu").peak["fp32"] < 1e14
    for name in ("v100", "-3", "nan", "inf", "0"):
        with pytest.raises(BadInput, match="h100, a100, cpu, or a peak"):
            find_device(name)


def test_the_time_of_a_step_follows_from_its_operations():
    recipe = small_recipe(num_workers=2)
    size = size_run(recipe)
    seconds = size.seconds_per_step(recipe.config, find_device("1"), 0.5)
    assert seconds == pytest.approx(size.operations / 2 / 0.5e12)
    assert size.operations == sum(size.forward.values()) + size.backward
