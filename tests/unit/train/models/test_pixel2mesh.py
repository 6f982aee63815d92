"""The whole network of Pixel2Mesh: oracle, published keys and sizes, precision, batches."""

import re
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from core.errors import BadInput
from train.models.pixel2mesh.deformation_losses import DeformationLossConfig, deformation_loss
from train.models.pixel2mesh.graph_convolution import GraphBlock
from train.models.pixel2mesh.pixel2mesh import (
    Pixel2Mesh,
    Pixel2MeshConfig,
    pixel2mesh_preset,
)
from train.models.pixel2mesh.template_mesh import CENTRE, Template, ellipsoid

SMALL = Pixel2MeshConfig(encoder_width=2, hidden=12, last_hidden=8, image_size=32, num_vertices=16)


@pytest.fixture
def model():
    """Return a small model none of whose weights is 0."""
    torch.manual_seed(0)
    model = Pixel2Mesh(SMALL)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def views(count):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 3, 32, 32, generator=generator)
    intrinsics = torch.tensor([1.1, 1.2, 0.5, 0.5]) + 0.05 * torch.rand(
        count, 4, generator=generator
    )
    return images, intrinsics


@pytest.mark.parametrize(
    ("published", "prefix"), [("align_corners", "out."), ("half_pixel", "out.today.")]
)
def test_meshes_and_gradients_match_the_oracle(oracle, published, prefix):
    expected = oracle("p2m_full")
    sizes = expected.config
    side, hidden, last = (sizes[name] for name in ("image", "hidden_dim", "last_hidden_dim"))
    template = Template(
        vertices=expected["in.vertices"].double().numpy() + CENTRE,
        faces=expected["in.faces"].numpy(),
    )
    model = Pixel2Mesh(
        Pixel2MeshConfig(hidden=hidden, last_hidden=last, image_size=side, published=published),
        template,
    )
    # The oracle's maps have numbers of channels that no encoder gives.
    pooled = 3 + sum(sizes["feature channels"])
    model.gcns = nn.ModuleList(
        GraphBlock(inputs, hidden, outputs)
        for inputs, outputs in ((pooled, 3), (pooled + hidden, 3), (pooled + hidden, last))
    )
    encoder = {f"nn_encoder.{key}": value for key, value in model.nn_encoder.state_dict().items()}
    points = {"init_pts": model.init_pts}
    model.load_state_dict({**expected.with_prefix("state."), **points, **encoder})
    (fx, fy), (cx, cy) = sizes["camera_f"], sizes["camera_c"]
    camera = torch.tensor([fx, fy, cx + 0.5, cy + 0.5]) / side
    maps = [expected[f"in.feat{i}"] for i in range(4)]
    deformation = model.deform(maps, camera.expand(len(maps[0]), 4))
    centre = torch.tensor(CENTRE)
    for i in range(3):
        expected.check(deformation.meshes[i] - centre, f"{prefix}coord_{i + 1}")
        if i == 0 or prefix == "out.":
            expected.check(deformation.before[i] - centre, f"out.before_{i + 1}")
    if prefix == "out.":
        loss = deformation_loss(
            deformation,
            list(model.levels),
            expected["in.points"] + centre,
            expected["in.normals"],
            DeformationLossConfig(),
        )["loss"]
        expected.check(loss, "out.loss")
        loss.backward()
        parameters = dict(model.named_parameters())
        for name in expected.with_prefix("out.grad."):
            expected.check(parameters[name].grad, f"out.grad.{name}")


@pytest.mark.parametrize(
    ("name", "channels", "hidden", "last"), [("vgg", 960, 256, 128), ("resnet", 3840, 192, 192)]
)
def test_the_published_presets_have_the_published_keys_and_shapes(name, channels, hidden, last):
    with torch.device("meta"):
        model = Pixel2Mesh(pixel2mesh_preset(name, {"published": "align_corners"}))
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert shapes.pop("init_pts") == (156, 3)
    graph = {key: shape for key, shape in shapes.items() if not key.startswith("nn_encoder.")}
    layer = re.compile(r"gconv|gcns\.[012]\.(conv[12]|blocks\.[0-5]\.conv[12])")
    parts = Counter(key.rpartition(".")[0] for key in graph)
    assert len(parts) == 43
    assert all(layer.fullmatch(part) and count == 3 for part, count in parts.items())
    assert {key.rpartition(".")[2] for key in graph} == {"weight", "loop_weight", "bias"}
    assert graph["gcns.0.conv1.weight"] == (3 + channels, hidden)
    assert graph["gcns.2.conv1.weight"] == (3 + channels + hidden, hidden)
    assert graph["gcns.2.conv2.loop_weight"] == (hidden, last)
    assert graph["gconv.weight"] == (last, 3)
    if name == "vgg":
        assert len(shapes) == 165
        assert sum(np.prod(shape) for shape in graph.values()) == 6_539_401
        assert sum(np.prod(shape) for shape in shapes.values()) == pytest.approx(19.38e6, rel=1e-3)


def test_a_step_runs_on_the_meta_device_and_its_operations_are_counted():
    config = pixel2mesh_preset("vgg")
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = Pixel2Mesh(config)
        deformation = model(torch.zeros(2, 3, *[config.image_size] * 2), torch.zeros(2, 4))
        sum(mesh.sum() for mesh in deformation.meshes).backward()
    assert [mesh.shape for mesh in deformation.meshes] == [(2, n, 3) for n in (156, 618, 2466)]
    assert [mesh.shape for mesh in deformation.before] == [(2, n, 3) for n in (156, 618, 2466)]
    # Only the 12 layers in residual blocks of 2466 vertices, with two weights each.
    at_least = 2 * 3 * 2 * 2466 * (2 * 12 * config.hidden**2)
    assert counter.get_total_flops() > at_least


def test_unknown_presets_and_sizes_that_cannot_work_are_refused():
    with pytest.raises(BadInput, match="choose from vgg, resnet, tiny"):
        pixel2mesh_preset("vgg16")
    for changes in ({"num_vertices": 3}, {"image_size": 1}, {"encoder": "dino"}):
        with pytest.raises(BadInput, match="model"):
            pixel2mesh_preset("tiny", changes)


def test_every_parameter_gets_a_gradient_and_recomputation_changes_none(model):
    images, intrinsics = views(2)
    gradients = []
    for _ in range(2):
        model.zero_grad()
        deformation = model(images, intrinsics)
        sum(mesh.square().sum() for mesh in deformation.meshes).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
        model.recompute_layers()
    plain, recomputed = gradients
    for name, gradient in plain.items():
        assert gradient.any(), name
        assert torch.equal(gradient, recomputed[name]), name


def test_an_object_has_the_same_mesh_in_every_batch(model):
    images, intrinsics = views(3)
    together = model(images, intrinsics).meshes
    for i in range(3):
        alone = model(images[i : i + 1], intrinsics[i : i + 1]).meshes
        for mesh, row in zip(alone, together, strict=True):
            torch.testing.assert_close(mesh[0], row[i], rtol=1e-5, atol=1e-6)


def test_bfloat16_weights_keep_the_template_and_give_a_smooth_surface(model):
    images, intrinsics = views(1)
    template = model.init_pts.clone()
    model.bfloat16()
    assert torch.equal(model.init_pts, template)
    coarse = model(images, intrinsics).meshes[-1]
    assert coarse.dtype == torch.float32
    exact = model.float()(images, intrinsics).meshes[-1]
    torch.testing.assert_close(coarse, exact, rtol=0, atol=1e-3)
    ends = model.levels[-1].edges.T
    edges = [mesh[0, ends[0]] - mesh[0, ends[1]] for mesh in (coarse, exact)]
    assert (edges[0] - edges[1]).norm() < 0.01 * edges[1].norm()


def test_training_starts_from_the_template_and_reaches_every_parameter():
    torch.manual_seed(0)
    model = Pixel2Mesh(SMALL)
    images, intrinsics = views(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    first = model(images, intrinsics)
    for mesh, before in zip(first.meshes, first.before, strict=True):
        assert torch.equal(mesh, before)
    start = [p.detach().clone() for p in model.parameters()]
    for _ in range(2):
        optimizer.zero_grad()
        sum(mesh.square().sum() for mesh in model(images, intrinsics).meshes).backward()
        optimizer.step()
    for (name, parameter), old in zip(model.named_parameters(), start, strict=True):
        assert not torch.equal(parameter, old), name


@pytest.mark.parametrize(
    ("published", "depth"), [(None, 0), ("half_pixel", 0), ("tensorflow", -0.8)]
)
def test_blocks_start_from_the_template_in_front_of_the_camera(published, depth):
    template = ellipsoid(24)
    model = Pixel2Mesh(SMALL.model_copy(update={"published": published}), template)
    assert model.init_pts.mean(dim=0)[2].item() == pytest.approx(depth, abs=1e-3)
    deformation = model(*views(1))
    expected = torch.tensor(template.vertices, dtype=torch.float32)
    torch.testing.assert_close(deformation.before[0][0], expected)
    for i in (0, 1):
        up = model.levels[i].unpooling(deformation.meshes[i])
        torch.testing.assert_close(deformation.before[i + 1], up)
