"""The size of a run before it runs, against the real model and a real step."""

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


def recipe(**changes) -> NerfRecipe:
    return NerfRecipe(NerfTrainConfig.load(SMALL | changes))


@functools.cache
def own_size() -> RunSize:
    """The size of the small recipe as it is."""
    return size_run(recipe())


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


# The counter does not know the CPU's fused attention, and would count it as nothing.
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)
    ),
}


def test_operations_are_those_of_a_real_step():
    size = own_size()
    module, step = recipe().build(), batch(2)
    forward, backward = (FlopCounterMode(display=False, custom_mapping=ATTENTION) for _ in "fb")
    with forward:
        loss = module(step)["loss"]
    with backward:
        loss.backward()
    assert sum(size.forward.values()) == forward.get_total_flops()
    assert size.backward == backward.get_total_flops()
    assert set(size.forward) == {"encoder", "transformer", "synthesizer"}


def test_memory_is_that_of_a_real_step():
    """The same meter on real tensors; they differ in what attention keeps for its backward."""
    module, step = recipe().build(), batch(2)
    for parameter in module.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    with _Meter() as meter, sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        module(step)["loss"].backward()
    assert own_size().memory["activations"] == pytest.approx(meter.peak, rel=0.1)


def test_layers_computed_again_take_less_memory_and_more_operations():
    layers = {"encoder": {"num_layers": 4}, "transformer": {"num_layers": 8}}
    kept, again = (
        size_run(recipe(preset="base", model=layers, activation_checkpointing=on))
        for on in (False, True)
    )
    assert again.memory["activations"] < 0.4 * kept.memory["activations"]
    assert again.backward > 1.1 * kept.backward
    assert again.forward == kept.forward


def test_utilisation_counts_nothing_twice():
    """However much is computed again, the model is the same."""
    known = {"peak_flops": 1e12, "num_workers": 1}
    kept = {"model": MODEL | {"nerf": {"samples_per_ray": 8, "checkpoint_chunks": False}}}
    kinds = known, known | {"activation_checkpointing": True}, known | kept
    found = {Utilisation(recipe(**kind)).metrics(2.0)["mfu"] for kind in kinds}
    assert len(found) == 1
    forward = sum(size_run(recipe(**known, **kept)).forward.values())
    # Fused attention does five products backward for two forward.
    assert found.pop() == pytest.approx(3 * forward / 2.0 / 1e12, rel=0.1)


def test_what_does_not_fit_is_refused_with_its_parts():
    with pytest.raises(BadInput, match=r"activations 0\.\d.* has 0\.1 GB: a smaller --micro-batch"):
        _check_memory(recipe(batch_size=16), 1e8)
    _check_memory(recipe(), 1e11)


def test_more_objects_go_on_in_a_straight_line():
    meta_step = recipe().meta_step()
    straight, counted = count_step(meta_step, 4), _count(meta_step, 4)
    assert straight.backward == counted.backward
    assert straight.forward == counted.forward
    assert straight.activation_bytes == pytest.approx(counted.activation_bytes, rel=0.05)


def test_parameters_are_those_of_the_model():
    size, model = own_size(), recipe().build().model
    for part in ("encoder", "transformer", "synthesizer"):
        assert size.parameters[part] == sum(p.numel() for p in getattr(model, part).parameters())
    assert len(size.parameters) == 3
    assert size.frozen == {}


def test_the_largest_model_is_sized_without_its_weights():
    """With the network that only measures, of which no file is read."""
    config = NerfTrainConfig(root="", snapshot="", out="", preset="large", micro_batch=1)
    meta_step = NerfRecipe(config).meta_step()
    assert all(parameter.is_meta for parameter in meta_step.module.parameters())
    size = size_run(NerfRecipe(config))
    # The paper's table 1 rounds to 378M; VGG16's convolutions and five rows of LPIPS.
    assert round(sum(size.parameters.values()) / 1e6) == 378
    assert size.frozen == {"lpips": 14_714_688 + 1472}
    assert size.forward["lpips"] > 0


@pytest.mark.parametrize(
    ("changes", "each"),
    [
        # Bytes of a parameter: weights, gradients, optimizer.
        ({"zero_stage": 0}, (4, 4, 8)),
        ({"zero_stage": 1}, (4, 4, 12)),
        ({"zero_stage": 1, "num_workers": 2}, (4, 4, 6)),
        ({"zero_stage": 2, "num_workers": 2}, (4, 2, 6)),
        ({"zero_stage": 1, "num_workers": 2, "precision": "bf16"}, (2, 2, 6)),
        ({"zero_stage": 0, "precision": "bf16"}, (2, 2, 12)),
    ],
)
def test_workers_share_the_state(changes, each):
    size = size_run(recipe(micro_batch=1, **changes))
    numbers = sum(size.parameters.values())
    found = [size.memory[name] / numbers for name in ("weights", "gradients", "optimizer")]
    assert found == pytest.approx(each)
    assert size.checkpoint_bytes / numbers == pytest.approx(
        each[0] + each[2] * (changes.get("num_workers", 1))
    )


def test_devices_by_name_or_by_peak():
    assert find_device("h100").peak["bf16"] > 2 * find_device("a100").peak["bf16"]
    assert find_device("120").peak["fp32"] == 120e12
    assert 1e8 < find_device("cpu").peak["fp32"] < 1e14
    for name in ("v100", "-3", "nan", "inf", "0"):
        with pytest.raises(BadInput, match="h100, a100, cpu, or a peak"):
            find_device(name)


def test_speed_follows_from_operations():
    own = recipe(num_workers=2)
    size = size_run(own)
    seconds = size.seconds_per_step(own.config, find_device("1"), 0.5)
    assert seconds == pytest.approx(size.operations / 2 / 0.5e12)
    assert size.operations == sum(size.forward.values()) + size.backward
