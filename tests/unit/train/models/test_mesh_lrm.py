"""The complete model of stage 2: keys, presets, gradients, and learning one object."""

import pytest
import torch

from core.errors import BadInput
from tests.support.lrm_models import TINY, published_keys, red_ball, viewpoints
from train.models.lrm.lrm import (
    MESH_PRESETS,
    PRESETS,
    MeshLRM,
    MeshLRMConfig,
    mesh_preset,
    nerf_preset,
)

TINY_MESH = MeshLRMConfig(
    encoder=TINY.encoder,
    transformer=TINY.transformer,
    image_size=TINY.image_size,
    mesh={"decoder_width": 16, "grid_resolution": 16, "rasterizer": "torch"},
)


def make_model(**settings):
    """Return a tiny model in which no modulation, weight or deformation is zero."""
    torch.manual_seed(0)
    mesh = TINY_MESH.mesh.model_copy(update=settings)
    model = MeshLRM(TINY_MESH.model_copy(update={"mesh": mesh}))
    for layer in model.encoder.model.encoder.layer:
        torch.nn.init.normal_(layer.adaLN_modulation[1].weight, std=0.05)
    for net in (model.synthesizer.decoder.net_weight, model.synthesizer.decoder.net_deformation):
        torch.nn.init.normal_(net[-1].weight, std=0.1)
    return model


@pytest.mark.parametrize("name", ["base", "large"])
def test_presets_have_the_published_keys_and_shapes(name):
    config = mesh_preset(name)
    with torch.device("meta"):
        state = MeshLRM(config).state_dict()
    keys = {key for key in published_keys(config) if not key.startswith("synthesizer.")}
    nets = {"sdf": 1, "rgb": 3, "deformation": 3, "weight": 21}
    keys |= {
        f"synthesizer.decoder.net_{net}.{layer}.{part}"
        for net in nets
        for layer in (0, 2, 4, 6)
        for part in ("weight", "bias")
    }
    assert set(state) == keys
    features = 3 * config.transformer.channels
    for net, outputs in nets.items():
        assert state[f"synthesizer.decoder.net_{net}.6.weight"].shape == (outputs, 64)
        inputs = 8 * features if net == "weight" else features
        assert state[f"synthesizer.decoder.net_{net}.0.weight"].shape == (64, inputs)
    assert config.mesh.grid_resolution == 128


def test_stage_two_has_the_same_presets_as_stage_one():
    assert list(MESH_PRESETS) == list(PRESETS)
    for name in PRESETS:
        nerf, mesh = nerf_preset(name), mesh_preset(name)
        assert (nerf.encoder, nerf.transformer, nerf.image_size) == (
            mesh.encoder,
            mesh.transformer,
            mesh.image_size,
        )
        # Stage 2 copies the decoder of stage 1.
        assert nerf.nerf.decoder_width == mesh.mesh.decoder_width
        assert nerf.nerf.decoder_hidden_layers == mesh.mesh.decoder_hidden_layers
        assert MeshLRMConfig.load(mesh.dump()) == mesh
    with pytest.raises(BadInput, match=r"'huge' does not exist: choose from base, large"):
        mesh_preset("huge")


def centre_distances(model, images, cameras):
    """Shift the distances so that half of the grid is inside the surface."""
    with torch.no_grad():
        planes = model.forward_planes(images, *cameras)
        distances = model.synthesizer.distances(planes)
        model.synthesizer.decoder.net_sdf[-1].bias -= distances.median()


@pytest.mark.parametrize("recompute", [True, False])
def test_gradients_reach_every_parameter(recompute):
    model, cameras = make_model(checkpoint_chunks=recompute, points_per_chunk=700), viewpoints(3)
    images = torch.rand(1, 3, 3, 32, 32)
    centre_distances(model, images, cameras)
    views, geometry = model(images, *cameras, *cameras, (24, 24))
    assert not geometry.repaired.any()
    loss = views.rgb.square().mean() + views.alpha.mean() + views.depth.mean()
    loss = loss + views.normals.square().sum(dim=2).mean() + views.normals.mean()
    (loss + geometry.deviation + geometry.weight_size).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A softmax does not change when the same number is added to all of its inputs.
        if not name.endswith("key.bias"):
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("autocast", [True, False])
def test_bfloat16_is_close_to_float32(autocast):
    """Both precisions start from the same triplanes, and the mesh is computed in float32."""
    model, cameras = make_model(), viewpoints(3)
    images = torch.rand(1, 3, 3, 32, 32)
    centre_distances(model, images, cameras)
    with torch.no_grad():
        planes = model.forward_planes(images, *cameras).bfloat16()
        exact, exact_geometry = model.synthesizer(planes.float(), *cameras, (24, 24))
        if not autocast:
            model.bfloat16()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            rounded, geometry = model.synthesizer(planes, *cameras, (24, 24))
    tolerance = 1e-5 if autocast else 0.05
    if autocast:
        assert torch.equal(geometry.surfaces[0].faces, exact_geometry.surfaces[0].faces)
    spread = exact_geometry.sdf.max() - exact_geometry.sdf.min()
    error = (geometry.sdf - exact_geometry.sdf).abs().max()
    assert error <= tolerance * spread
    assert (rounded.rgb - exact.rgb).abs().mean() < tolerance
    for image in (rounded.rgb, rounded.alpha, rounded.depth, rounded.normals):
        assert image.dtype == torch.float32


def test_objects_of_a_batch_do_not_mix():
    model, cameras = make_model(), viewpoints(2)
    images = torch.rand(2, 2, 3, 32, 32)
    batch_cameras = [tensor.expand(2, *tensor.shape[1:]) for tensor in cameras]
    centre_distances(model, images, batch_cameras)
    batched, _ = model(images, *batch_cameras, *batch_cameras, (16, 16))
    for index in range(2):
        single, _ = model(images[index : index + 1], *cameras, *cameras, (16, 16))
        torch.testing.assert_close(single.rgb[0], batched.rgb[index], atol=1e-4, rtol=1e-3)


def test_the_model_learns_one_object():
    model, side, cameras = make_model(checkpoint_chunks=False), 24, viewpoints(4)
    rgb, alpha = red_ball(*cameras, side)
    images = torch.nn.functional.interpolate(rgb[0], (32, 32))[None]
    centre_distances(model, images, cameras)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95))
    losses = []
    # The random surface disappears first; the surface that the repair adds grows into the ball.
    for _ in range(60):
        views, geometry = model(images, *cameras, *cameras, (side, side))
        loss = (views.rgb - rgb).square().mean() + (views.alpha - alpha).square().mean()
        loss = loss + 0.1 * geometry.deviation
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    constant = (rgb - rgb.mean(dim=(1, 3, 4), keepdim=True)).square().mean() + alpha.var()
    assert losses[-1] < 0.3 * constant, losses[::10]
