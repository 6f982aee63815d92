"""The losses of stage 1: oracle, weights, and the inputs of LPIPS."""

import pytest
import torch

from core.errors import BadInput
from train.models.lpips import Lpips
from train.models.lrm.losses import NerfLossConfig, nerf_loss

WITHOUT_LPIPS = NerfLossConfig(lpips=0)


def test_the_losses_of_stage_one_match_the_oracle(oracle):
    expected = oracle("losses")
    rgb = expected["in.s1.images_rgb"].clone().requires_grad_()
    alpha = expected["in.s1.images_weight"].clone().requires_grad_()
    targets = expected["in.s1.target_images"], expected["in.s1.target_alphas"]
    terms = nerf_loss(rgb, alpha, *targets, WITHOUT_LPIPS)
    expected.check(WITHOUT_LPIPS.mse * terms["mse"], "out.s1.loss_mse")
    expected.check(WITHOUT_LPIPS.mask * terms["mask"], "out.s1.loss_mask")
    expected.check(terms["loss"], "out.s1.loss")
    terms["loss"].backward()
    expected.check(rgb.grad, "out.grad.s1.images_rgb")
    expected.check(alpha.grad, "out.grad.s1.images_weight")


def images(count, side=16):
    generator = torch.Generator().manual_seed(7)
    return (torch.rand(1, 2, count, side, side, generator=generator) for _ in range(2))


def test_the_default_weights_are_those_of_the_paper_and_every_weight_has_an_effect():
    assert NerfLossConfig().dump() == {"mse": 1.0, "lpips": 2.0, "mask": 1.0}
    torch.manual_seed(0)
    lpips = Lpips()
    for weight in lpips.linear:
        torch.nn.init.uniform_(weight)
    (rgb, target), (alpha, target_alpha) = images(3), images(1)
    config = NerfLossConfig(mse=3.0, lpips=5.0, mask=7.0)
    terms = nerf_loss(rgb, alpha, target, target_alpha, config, lpips)
    assert set(terms) == {"loss", "mse", "lpips", "mask"}
    weighted = 3 * terms["mse"] + 5 * terms["lpips"] + 7 * terms["mask"]
    torch.testing.assert_close(terms["loss"], weighted)
    signed = (rgb * 2 - 1)[0], (target * 2 - 1)[0]
    torch.testing.assert_close(terms["lpips"], lpips(*signed).mean())
    torch.testing.assert_close(terms["mse"], 4 * (rgb - target).square().mean())


def test_a_term_with_weight_zero_is_omitted_and_a_missing_lpips_is_an_error():
    (rgb, target), (alpha, target_alpha) = images(3), images(1)
    terms = nerf_loss(rgb, alpha, target, target_alpha, WITHOUT_LPIPS)
    assert set(terms) == {"loss", "mse", "mask"}
    with pytest.raises(ValueError, match="no Lpips was given"):
        nerf_loss(rgb, alpha, target, target_alpha, NerfLossConfig())


def test_a_perfect_picture_has_loss_zero_even_slightly_out_of_range():
    (rgb, _), (alpha, _) = images(3), images(1)
    rgb[..., 0], alpha[..., 0] = 1.0, 0.0
    rendered, opacity = rgb.clone(), alpha.clone()
    rendered[..., 0], opacity[..., 0] = 1.001, -1e-7
    assert nerf_loss(rendered, opacity, rgb, alpha, WITHOUT_LPIPS)["loss"] == 0


def test_a_negative_weight_is_an_error():
    with pytest.raises(BadInput, match="mask"):
        NerfLossConfig.load({"mask": -1.0})
