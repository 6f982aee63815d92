"""The losses of stage 2: oracle, hand-made cases, and weights."""

import pytest
import torch

from train.models.lrm.losses import MeshLossConfig, mesh_loss
from train.models.lrm.mesh import Geometry
from train.models.lrm.mesh_render import MeshViews
from train.models.surfaces.flexicubes import Surface, sdf_sign_loss

TERMS = {
    "mse": ("loss_mse", 1.0),
    "mask": ("loss_mask", 1.0),
    "normal": ("loss_normal", 0.2),
    "depth": ("loss_depth", 0.5),
    "sdf_sign": ("loss_reg_sdf", 0.01),
    "deviation": ("loss_reg_surface", 0.5),
    "weight_size": ("loss_reg_weights", 0.1),
}
"""Per loss term: the name in the oracle, and the default weight."""


def geometry_of(sdf, deviation, weight_size):
    """Return a geometry with the given deviation and mean squared weights."""
    surface = Surface(
        vertices=torch.zeros(0, 3),
        faces=torch.zeros(0, 3, dtype=torch.long),
        deviation=torch.as_tensor(deviation).reshape(1),
    )
    return Geometry(
        surfaces=[surface],
        sdf=sdf,
        weights=torch.as_tensor(weight_size).sqrt().expand(1, 21),
        repaired=torch.zeros(len(sdf), dtype=torch.bool),
    )


def test_the_losses_of_stage_two_match_the_oracle(oracle):
    expected = oracle("losses")
    inputs = expected.with_prefix("in.s2.")
    names = ("img", "mask", "depth", "normal", "sdf")
    leaf = {name: inputs[name].clone().requires_grad_() for name in names}
    views = MeshViews(
        rgb=leaf["img"], alpha=leaf["mask"], depth=leaf["depth"], normals=leaf["normal"] * 2 - 1
    )
    geometry = geometry_of(leaf["sdf"][..., 0], inputs["surface_reg"], inputs["weight_reg"])
    config = MeshLossConfig(lpips=0, published_normal=True)
    terms = mesh_loss(
        views,
        geometry,
        inputs["target_images"],
        inputs["target_alphas"],
        # The released code masks by alpha; the dataset stores depth 0 there instead.
        inputs["target_depths"] * (inputs["target_alphas"] > 0),
        inputs["target_normals"] * 2 - 1,
        config,
    )
    assert set(terms) == {"loss", *TERMS}
    for name, (oracle_name, weight) in TERMS.items():
        expected.check(weight * terms[name], f"out.s2.{oracle_name}")
    expected.check(terms["loss"], "out.s2.loss")
    terms["loss"].backward()
    for name, tensor in leaf.items():
        expected.check(tensor.grad, f"out.grad.s2.{name}")


def uniform_views(depth=0.0, normal=(0.0, 0.0, 0.0)):
    """Return one white, transparent view of 2x2 pixels with a uniform depth and normal."""
    return MeshViews(
        rgb=torch.ones(1, 1, 3, 2, 2),
        alpha=torch.zeros(1, 1, 1, 2, 2),
        depth=torch.full((1, 1, 1, 2, 2), depth),
        normals=torch.tensor(normal)[:, None, None].expand(1, 1, 3, 2, 2),
    )


def loss_of(views, target, geometry=None, **settings):
    geometry = geometry or geometry_of(torch.ones(1, 27), 0.0, 0.0)
    config = MeshLossConfig(lpips=0, **settings)
    return mesh_loss(
        views, geometry, target.rgb, target.alpha, target.depth, target.normals, config
    )


def test_depth_and_normals_count_only_where_the_target_has_depth():
    views, target = uniform_views(2.5, (0.0, 0.0, 1.0)), uniform_views(0.0)
    target.depth[..., 0, 0] = 2.0
    target.depth[..., 1, 1] = 3.5
    target = MeshViews(
        rgb=target.rgb,
        alpha=target.alpha,
        depth=target.depth,
        normals=torch.tensor([0.6, 0.0, 0.8])[:, None, None].expand(1, 1, 3, 2, 2),
    )
    terms = loss_of(views, target)
    assert terms["depth"].item() == pytest.approx((0.5 + 1.0) / 2)
    assert terms["normal"].item() == pytest.approx(0.2)
    assert terms["mse"] == terms["mask"] == 0
    expected = 0.5 * terms["depth"] + 0.2 * terms["normal"]
    torch.testing.assert_close(terms["loss"], expected)


@pytest.mark.parametrize(("published", "cost"), [(False, 2.0), (True, 0.0)])
def test_an_inverted_normal_is_penalised_except_with_published_normal(published, cost):
    views, target = uniform_views(2.0, (0.0, 0.0, -1.0)), uniform_views(2.0, (0.0, 0.0, 1.0))
    assert loss_of(views, target, published_normal=published)["normal"] == cost


def test_every_weight_has_an_effect_and_a_term_with_weight_zero_is_omitted():
    torch.manual_seed(0)
    views = MeshViews(
        rgb=torch.rand(1, 2, 3, 4, 4),
        alpha=torch.rand(1, 2, 1, 4, 4),
        depth=torch.rand(1, 2, 1, 4, 4),
        normals=torch.rand(1, 2, 3, 4, 4),
    )
    target = uniform_views(2.0, (0.0, 1.0, 0.0))
    target = MeshViews(
        **{
            name: torch.cat([getattr(target, name)] * 2, dim=1).repeat(1, 1, 1, 2, 2)
            for name in ("rgb", "alpha", "depth", "normals")
        }
    )
    geometry = geometry_of(torch.randn(1, 64), 0.3, 0.7)
    weights = {"mse": 2.0, "mask": 3.0, "depth": 5.0, "normal": 7.0}
    regularizers = {"sdf_sign": 11.0, "deviation": 13.0, "weight_size": 17.0}
    terms = loss_of(views, target, geometry, regularizer=0.5, **weights, **regularizers)
    weights |= {name: 0.5 * weight for name, weight in regularizers.items()}
    assert set(terms) == {"loss", *weights}
    expected = sum(weight * terms[name] for name, weight in weights.items())
    torch.testing.assert_close(terms["loss"], expected)
    torch.testing.assert_close(terms["sdf_sign"], sdf_sign_loss(geometry.sdf))
    for name in ("mse", "mask", "depth", "normal", *regularizers):
        assert set(loss_of(views, target, geometry, **{name: 0})) == {"loss", *weights} - {name}
    assert set(loss_of(views, target, geometry, regularizer=0)) == {"loss", *weights} - {
        *regularizers
    }


def test_the_default_weights_are_those_of_the_paper():
    config = MeshLossConfig()
    assert (config.mse, config.lpips, config.mask) == (1, 2, 1)
    assert (config.depth, config.normal, config.regularizer) == (0.5, 0.2, 0.01)
    with pytest.raises(ValueError, match="no Lpips was given"):
        mesh_loss(
            uniform_views(),
            geometry_of(torch.ones(1, 27), 0.0, 0.0),
            *(getattr(uniform_views(), name) for name in ("rgb", "alpha", "depth", "normals")),
            config,
        )


def test_an_empty_target_has_no_depth_and_normal_loss():
    terms = loss_of(uniform_views(3.0, (1.0, 0.0, 0.0)), uniform_views())
    assert terms["depth"] == terms["normal"] == 0
    assert terms["loss"].isfinite()
