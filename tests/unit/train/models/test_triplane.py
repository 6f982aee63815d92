"""The triplane transformer against its oracle, and sampling of the planes at points."""

import pytest
import torch

from core.errors import BadInput
from train.models.lrm.triplane import TriplaneConfig, TriplaneTransformer, sample_planes


def test_blocks_and_planes_match_the_oracle(oracle):
    expected = oracle("transformer")
    sizes = expected.config
    config = TriplaneConfig(
        num_layers=sizes["num_layers"],
        width=sizes["inner_dim"],
        num_heads=sizes["num_heads"],
        low_resolution=sizes["triplane_low_res"],
        high_resolution=sizes["triplane_high_res"],
        channels=sizes["triplane_dim"],
    )
    transformer = TriplaneTransformer(config, sizes["image_feat_dim"])
    transformer.load_state_dict(expected.with_prefix("state.transformer."))
    outputs = {}
    for index, layer in enumerate(transformer.layers):
        layer.register_forward_hook(lambda _, __, out, n=index: outputs.update({f"block_{n}": out}))
    transformer.norm.register_forward_hook(lambda _, __, out: outputs.update({"norm": out}))
    expected.check(transformer(expected["in.image_feats"]), "out.planes")
    assert len(outputs) == sizes["num_layers"] + 1
    for name, tokens in outputs.items():
        expected.check(tokens, f"out.after_{name}")


def test_point_features_match_the_oracle(oracle):
    expected = oracle("nerf_points")
    features = sample_planes(expected["in.planes"], expected["in.points"])
    by_plane = features.unflatten(-1, (3, -1)).movedim(-2, 1)
    expected.check(by_plane, "out.features")


@pytest.mark.parametrize(("plane", "width_axis", "height_axis"), [(0, 0, 1), (1, 0, 2), (2, 2, 1)])
def test_each_plane_is_sampled_along_its_two_axes(plane, width_axis, height_axis):
    side = 8
    planes = torch.zeros(1, 3, 1, side, side)
    planes[0, plane, 0, 1, 6] = 1.0
    point = torch.full((1, 1, 3), 0.3)
    point[..., width_axis] = (2 * 6 + 1) / side - 1
    point[..., height_axis] = (2 * 1 + 1) / side - 1
    expected = torch.zeros(3)
    expected[plane] = 1.0
    torch.testing.assert_close(sample_planes(planes, point)[0, 0], expected)


def test_sampling_computes_in_float32_for_any_dtype_of_the_planes():
    torch.manual_seed(0)
    planes = torch.randn(1, 3, 2, 64, 64).bfloat16()
    points = torch.rand(1, 50, 3) * 2 - 1
    features = sample_planes(planes, points)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, sample_planes(planes.float(), points))


def test_the_upsampling_factor_can_be_any_integer():
    config = TriplaneConfig(
        num_layers=1, width=8, num_heads=2, low_resolution=3, high_resolution=9, channels=5
    )
    assert TriplaneTransformer(config, 6)(torch.randn(2, 4, 6)).shape == (2, 3, 5, 9, 9)
    with pytest.raises(BadInput, match="not a multiple of low_resolution 32"):
        TriplaneConfig.load({"low_resolution": 32, "high_resolution": 40})
