"""The complete model of stage 1: oracle, keys, presets, gradients, and learning one object."""

import pytest
import torch

from core.errors import BadInput
from tests.support.lrm_models import TINY, published_keys, red_ball, viewpoints
from train.models.lrm.lrm import PRESETS, NerfLRM, NerfLRMConfig, nerf_preset
from train.models.lrm.rays import Window
from train.models.lrm.vit import camera_vector


@pytest.fixture
def model():
    """Return a tiny model whose camera modulation is not zero."""
    torch.manual_seed(0)
    model = NerfLRM(TINY)
    for layer in model.encoder.model.encoder.layer:
        torch.nn.init.normal_(layer.adaLN_modulation[1].weight, std=0.05)
    return model


def test_planes_and_gradients_match_the_oracle(oracle):
    expected = oracle("planes_end_to_end")
    sizes, vit = expected.config, expected.config["vit"]
    weights = expected.with_prefix("state.")
    config = NerfLRMConfig.load(
        {
            "encoder": {
                "num_layers": vit["layers"],
                "width": vit["hidden"],
                "num_heads": vit["heads"],
                "mlp_width": vit["intermediate"],
                "patch_size": vit["patch"],
                "position_side": vit["image_size"] // vit["patch"],
            },
            "transformer": {
                "num_layers": sizes["transformer_layers"],
                "width": sizes["transformer_dim"],
                "num_heads": sizes["transformer_heads"],
                "low_resolution": sizes["low"],
                "high_resolution": sizes["high"],
                "channels": sizes["triplane_dim"],
            },
            "nerf": {"decoder_width": len(weights["synthesizer.decoder.net.0.weight"])},
            "image_size": sizes["size"],
        }
    )
    model = NerfLRM(config)
    model.load_state_dict(weights, strict=True)
    vectors = expected["in.cameras"]
    last_row = torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(*vectors.shape[:2], 1, 4)
    camera_to_world = torch.cat([vectors[..., :12].unflatten(-1, (3, 4)), last_row], dim=-2)
    planes = model.forward_planes(expected["in.images"], camera_to_world, vectors[..., 12:])
    expected.check(planes, "out.planes")
    planes.square().mean().backward()
    parameters = dict(model.named_parameters())
    for name in expected.with_prefix("out.grad."):
        expected.check(parameters[name].grad, f"out.grad.{name}")


@pytest.mark.parametrize(("name", "millions"), [("base", 313), ("large", 378)])
def test_the_published_presets_have_the_published_keys_shapes_and_size(name, millions):
    config = nerf_preset(name)
    with torch.device("meta"):
        state = NerfLRM(config).state_dict()
    assert set(state) == published_keys(config)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert shapes["encoder.model.embeddings.position_embeddings"] == (1, 197, 768)
    assert shapes["encoder.model.encoder.layer.11.adaLN_modulation.1.weight"] == (3072, 768)
    assert shapes["transformer.pos_embed"] == (1, 3072, 1024)
    assert shapes["transformer.layers.0.cross_attn.k_proj_weight"] == (1024, 768)
    channels = {"base": 40, "large": 80}[name]
    assert shapes["transformer.deconv.weight"] == (1024, channels, 2, 2)
    assert shapes["synthesizer.decoder.net.0.weight"] == (64, 3 * channels)
    assert config.nerf.samples_per_ray == {"base": 96, "large": 128}[name]
    assert round(sum(value.numel() for value in state.values()) / 1e6) == millions


@pytest.mark.parametrize(("name", "max_millions"), [("small", 40), ("tiny", 1)])
def test_the_small_models_are_small(name, max_millions):
    with torch.device("meta"):
        model = NerfLRM(nerf_preset(name))
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert max_millions / 4 < count <= max_millions


def test_presets_can_be_dumped_and_loaded_and_unknown_ones_are_named():
    for name in PRESETS:
        config = nerf_preset(name)
        assert NerfLRMConfig.load(config.dump()) == config
    with pytest.raises(BadInput, match=r"'huge' does not exist: choose from base, large"):
        nerf_preset("huge")
    with pytest.raises(BadInput, match="image_size 100 is not a multiple"):
        NerfLRMConfig.load({"image_size": 100})


@pytest.mark.parametrize("views", [1, 2, 6])
def test_any_number_of_input_views(model, views):
    camera_to_world, intrinsics = viewpoints(views)
    planes = model.forward_planes(torch.rand(1, views, 3, 32, 32), camera_to_world, intrinsics)
    assert planes.shape == (1, 3, 6, 16, 16)
    assert planes.isfinite().all()


def test_each_view_is_encoded_with_its_camera_and_their_order_does_not_matter(model):
    camera_to_world, intrinsics = viewpoints(3)
    images = torch.rand(1, 3, 3, 32, 32)
    planes = model.forward_planes(images, camera_to_world, intrinsics)
    vectors = camera_vector(camera_to_world, intrinsics)
    tokens = [model.encoder(images[:, view], vectors[:, view]) for view in range(3)]
    torch.testing.assert_close(model.transformer(torch.cat(tokens, dim=1)), planes)
    flipped = model.forward_planes(images.flip(1), camera_to_world.flip(1), intrinsics.flip(1))
    torch.testing.assert_close(flipped, planes, atol=1e-5, rtol=1e-4)
    swapped = model.forward_planes(images, camera_to_world.flip(1), intrinsics)
    assert (swapped - planes).abs().max() > 1e-3


def test_objects_of_a_batch_do_not_mix(model):
    camera_to_world, intrinsics = viewpoints(2)
    images = torch.rand(3, 2, 3, 32, 32)
    batched = model(
        images,
        *(tensor.expand(3, *tensor.shape[1:]) for tensor in (camera_to_world, intrinsics) * 2),
        (5, 5),
    )
    for index in range(3):
        single = model(images[index : index + 1], *(camera_to_world, intrinsics) * 2, (5, 5))
        torch.testing.assert_close(single.rgb[0], batched.rgb[index], atol=1e-5, rtol=1e-4)


def test_gradients_reach_every_parameter(model):
    camera_to_world, intrinsics = viewpoints(3)
    views = model(
        torch.rand(1, 3, 3, 32, 32),
        *(camera_to_world, intrinsics) * 2,
        (40, 40),
        Window(10, 10, 16, 16),
        torch.Generator().manual_seed(0),
    )
    (views.rgb.square().mean() + views.alpha.mean() + views.depth.mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A softmax does not change when the same number is added to all of its inputs.
        if not name.endswith("key.bias"):
            assert parameter.grad.abs().max() > 0, name


def test_recomputed_layers_give_the_same_gradients(model):
    images = torch.rand(1, 2, 3, 32, 32)
    gradients = []
    for recompute in (False, True):
        if recompute:
            model.recompute_layers()
        model.zero_grad()
        model.forward_planes(images, *viewpoints(2)).square().mean().backward()
        gradients.append({k: p.grad for k, p in model.named_parameters() if p.grad is not None})
    stored, recomputed = gradients
    assert stored.keys() == recomputed.keys()
    for name, gradient in stored.items():
        assert torch.equal(gradient, recomputed[name]), name


@pytest.mark.parametrize("autocast", [True, False])
def test_bfloat16_is_close_to_float32(model, autocast):
    camera_to_world, intrinsics = viewpoints(3)
    inputs = (torch.rand(1, 3, 3, 32, 32), *(camera_to_world, intrinsics) * 2, (12, 12))
    with torch.no_grad():
        exact = model(*inputs)
        if not autocast:
            model.bfloat16()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            rounded = model(*inputs)
    for name in ("rgb", "alpha"):
        assert getattr(rounded, name).dtype == torch.float32
        torch.testing.assert_close(
            getattr(rounded, name), getattr(exact, name), atol=0.03, rtol=0, msg=name
        )
    # Rays are computed in float32: a ray that misses the box misses it in either precision.
    assert torch.equal(rounded.alpha == 0, exact.alpha == 0)
    visible = exact.alpha > 0.2
    torch.testing.assert_close(rounded.depth[visible], exact.depth[visible], atol=0.03, rtol=0)


def test_the_model_learns_one_object():
    torch.manual_seed(0)
    nerf = TINY.nerf.model_copy(update={"checkpoint_chunks": False})
    model = NerfLRM(TINY.model_copy(update={"nerf": nerf}))
    side, cameras = 16, viewpoints(4)
    rgb, alpha = red_ball(*cameras, side)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.95))
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=10)
    generator = torch.Generator().manual_seed(1)
    for _ in range(80):
        views = model(rgb, *cameras, *cameras, (side, side), randomness=generator)
        loss = (views.rgb - rgb).square().mean() + (views.alpha - alpha).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        warmup.step()
    constant = (rgb - rgb.mean(dim=(1, 3, 4), keepdim=True)).square().mean() + alpha.var()
    assert loss < 0.3 * constant
