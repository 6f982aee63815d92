"""The losses of Pixel2Mesh: oracle with gradients, closed forms, invariants, and the settings."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import BadInput
from train.models.pixel2mesh.deformation_losses import (
    PRESETS,
    DeformationLossConfig,
    deformation_loss,
)
from train.models.pixel2mesh.pixel2mesh import Deformation
from train.models.pixel2mesh.template_mesh import Template, ellipsoid, mesh_levels

RELEASED = DeformationLossConfig()
TERMS = ("chamfer", "normal", "laplace", "move", "edge")


def test_the_losses_and_their_gradients_match_the_oracle(oracle):
    expected = oracle("p2m_losses")
    template = Template(
        vertices=expected["in.vertices"].numpy(), faces=expected["in.faces"].numpy()
    )
    meshes = [expected[f"in.pred_{block}"].clone().requires_grad_() for block in (1, 2, 3)]
    deformation = Deformation(
        meshes=tuple(meshes), before=tuple(expected[f"in.before_{block}"] for block in (1, 2, 3))
    )
    terms = deformation_loss(
        deformation, mesh_levels(template), expected["in.points"], expected["in.normals"], RELEASED
    )
    assert set(terms) == {"loss", *TERMS}
    for name, value in terms.items():
        key = "out.loss" if name == "loss" else f"out.loss_{name}"
        torch.testing.assert_close(value.detach(), expected[key], rtol=1e-5, atol=0)
    terms["loss"].backward()
    for block, mesh in enumerate(meshes, start=1):
        expected.check(mesh.grad, f"out.grad.pred_{block}", tolerance=1e-5)


def example(seed: int, batch: int = 1):
    """Return random meshes of a small template, its levels, and points with normals."""
    generator = torch.Generator().manual_seed(seed)
    levels = mesh_levels(ellipsoid(12))
    shapes = [(batch, level.num_vertices, 3) for level in levels]
    meshes, before = (
        tuple(torch.randn(shape, generator=generator) for shape in shapes) for _ in range(2)
    )
    points, normals = (torch.randn(batch, 40, 3, generator=generator) for _ in range(2))
    return Deformation(meshes=meshes, before=before), levels, points, normals


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.floats(-3, 3))
def test_the_terms_do_not_depend_on_the_frame_or_on_the_sign_of_normals(seed, mirror, shift):
    deformation, levels, points, normals = example(seed)
    axes = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)))[0]
    axes = axes * (-1 if mirror else 1)

    def moved(parts):
        return tuple(part @ axes + shift for part in parts)

    other = Deformation(meshes=moved(deformation.meshes), before=moved(deformation.before))
    before = deformation_loss(deformation, levels, points, normals, RELEASED)
    after = deformation_loss(other, levels, points @ axes + shift, -3 * normals @ axes, RELEASED)
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-3, atol=1e-5)


def test_a_batch_has_the_mean_of_its_objects_losses():
    deformation, levels, points, normals = example(0, batch=2)
    whole = deformation_loss(deformation, levels, points, normals, RELEASED)
    parts = []
    for row in (slice(0, 1), slice(1, 2)):
        own = Deformation(
            meshes=tuple(mesh[row] for mesh in deformation.meshes),
            before=tuple(mesh[row] for mesh in deformation.before),
        )
        parts.append(deformation_loss(own, levels, points[row], normals[row], RELEASED))
    for name, value in whole.items():
        torch.testing.assert_close(value, (parts[0][name] + parts[1][name]) / 2)


def test_a_block_that_moves_everything_alike_changes_no_laplacian_coordinate():
    """The mesh is the true points, so only lengths, angles and the displacement remain."""
    levels = mesh_levels(ellipsoid(12))
    generator = torch.Generator().manual_seed(0)
    # The vertices of a level are the first ones of the next.
    last = torch.randn(1, levels[2].num_vertices, 3, generator=generator)
    meshes = tuple(last[:, : level.num_vertices] for level in levels)
    before = tuple(mesh + torch.tensor([0.0, 0.3, 0.4]) for mesh in meshes)
    deformation = Deformation(meshes=meshes, before=before)
    config = DeformationLossConfig(chamfer_reverse=1)
    terms = deformation_loss(deformation, levels, meshes[2], torch.zeros(last.shape), config)
    assert terms["laplace"].item() == pytest.approx(0, abs=1e-10)
    assert terms["move"].item() == pytest.approx(2 * 0.5**2)
    assert terms["normal"].item() == 0
    exact = sum(
        torch.cdist(last, mesh).amin(dim=2).square().mean() for mesh in meshes
    )  # each vertex is a true point: nothing in the other direction
    assert terms["chamfer"].item() == pytest.approx(exact.item(), rel=1e-5)
    lengths = sum(
        2
        * (mesh[:, level.edges[:, 0]] - mesh[:, level.edges[:, 1]]).square().sum()
        / (2 * len(level.edges) + level.num_vertices)
        for mesh, level in zip(meshes, levels, strict=True)
    )
    assert terms["edge"].item() == pytest.approx(lengths.item(), rel=1e-5)


def test_every_weight_has_an_effect_and_overrides_its_preset():
    inputs = example(3)
    plain = deformation_loss(*inputs, RELEASED)
    for name, value in PRESETS["released"].items():
        config = DeformationLossConfig.load({name: 2 * value + 1})
        terms = deformation_loss(*inputs, config)
        weights = config.weights()
        assert weights[name] == 2 * value + 1
        weighted = sum(weights[term] * terms[term] for term in TERMS)
        torch.testing.assert_close(terms["loss"], weighted)
        assert not torch.isclose(terms["loss"], plain["loss"])


def test_presets_are_those_of_the_released_code_and_of_the_paper():
    names = ("chamfer", "chamfer_reverse", "normal", "laplace", "laplace_first", "move", "edge")
    expected = {
        "released": (1, 0.55, 1.6e-4, 0.5, 0.2, 0.033, 0.1),
        "paper": (1, 1, 1.6e-4, 0.3, 1, 0, 0.1),
    }
    for preset, values in expected.items():
        config = DeformationLossConfig.load({"preset": preset})
        assert config.weights() == dict(zip(names, values, strict=True))
        assert DeformationLossConfig.load(config.dump()) == config
    mixed = DeformationLossConfig.load({"preset": "paper", "edge": 0.0}).weights()
    assert (mixed["edge"], mixed["laplace"]) == (0, 0.3)
    with pytest.raises(BadInput, match="preset"):
        DeformationLossConfig.load({"preset": "papre"})


def test_a_vertex_that_is_not_finite_makes_the_loss_not_finite():
    deformation, levels, points, normals = example(4)
    deformation.meshes[1][0, 5, 1] = math.nan
    assert not deformation_loss(deformation, levels, points, normals, RELEASED)["loss"].isfinite()
