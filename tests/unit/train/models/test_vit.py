"""The image encoder: against its oracle, and its properties at any size."""

import pytest
import torch

from core.errors import BadInput
from train.models.lrm.vit import CameraViT, ViTConfig, camera_vector

SMALL = ViTConfig(num_layers=2, width=24, num_heads=3, mlp_width=40, patch_size=8, position_side=4)


def config_of(values):
    """Return the encoder's configuration, given the sizes under the oracle's names."""
    return ViTConfig(
        num_layers=values["layers"],
        width=values["hidden"],
        num_heads=values["heads"],
        mlp_width=values["intermediate"],
        patch_size=values["patch"],
        position_side=values["image_size"] // values["patch"],
    )


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return CameraViT(SMALL)


def test_tokens_positions_and_camera_embedding_match_the_oracle(oracle):
    expected = oracle("encoder")
    encoder = CameraViT(config_of(expected.config["vit"]))
    encoder.load_state_dict(expected.with_prefix("state.encoder."))
    cameras = expected["in.cameras"].flatten(0, 1)
    expected.check(encoder.camera_embedder(cameras), "out.camera_embedding")
    patch = expected.config["vit"]["patch"]
    for case, (height, width) in expected.config["sizes"].items():
        positions = encoder.model.embeddings.positions(height // patch, width // patch)
        expected.check(positions, f"out.posemb_{case}")
        images = expected[f"in.images_{case}"].flatten(0, 1)
        expected.check(encoder(images, cameras), f"out.tokens_{case}")


def test_the_camera_vector_is_the_matrix_row_by_row_and_the_intrinsics():
    camera_to_world = torch.arange(16.0).view(1, 4, 4)
    vector = camera_vector(camera_to_world, torch.tensor([[20.0, 21.0, 22.0, 23.0]]))
    assert vector.tolist() == [[*map(float, range(12)), 20.0, 21.0, 22.0, 23.0]]


def test_a_new_encoder_ignores_the_camera_and_a_modulated_one_does_not(encoder):
    images = torch.rand(1, 3, 16, 32)
    cameras = torch.randn(2, 1, 16)
    torch.testing.assert_close(encoder(images, cameras[0]), encoder(images, cameras[1]))
    torch.nn.init.normal_(encoder.model.encoder.layer[0].adaLN_modulation[1].weight, std=0.1)
    difference = encoder(images, cameras[0]) - encoder(images, cameras[1])
    assert difference.abs().max() > 1e-3


def test_the_position_table_is_resampled_except_at_its_own_size(encoder):
    embeddings = encoder.model.embeddings
    side = SMALL.position_side
    assert embeddings.positions(side, side) is embeddings.position_embeddings
    wide = embeddings.positions(side // 2, side * 2)
    assert wide.shape == embeddings.position_embeddings.shape
    assert not torch.allclose(wide, embeddings.position_embeddings)


def cubic_resize(values, patches):
    """Resample a table by cubic convolution (a = -0.75) with the published scale factor."""
    side = len(values)
    positions = (torch.arange(patches) + 0.5) * side / (patches + 0.1) - 0.5
    taps = positions.floor()[:, None] + torch.arange(-1, 3)
    distance = (positions[:, None] - taps).abs()
    inner = 1.25 * distance**3 - 2.25 * distance**2 + 1
    outer = -0.75 * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    kernel = torch.where(distance <= 1, inner, outer)
    return (values[taps.long().clamp(0, side - 1)] * kernel).sum(dim=-1)


def test_the_position_table_is_resampled_with_the_published_scale_factor():
    torch.manual_seed(0)
    side, rows, columns = 14, 20, 9
    encoder = CameraViT(SMALL.model_copy(update={"position_side": side}))
    embeddings = encoder.model.embeddings
    down, across = torch.randn(side), torch.randn(side)
    with torch.no_grad():
        table = (down[:, None] * across).flatten()
        embeddings.position_embeddings[0, 1:] = table[:, None]
    positions = embeddings.positions(rows, columns)
    assert torch.equal(positions[:, 0], embeddings.position_embeddings[:, 0])
    expected = cubic_resize(down, rows)[:, None] * cubic_resize(across, columns)
    torch.testing.assert_close(positions[0, 1:, 5].view(rows, columns), expected, atol=1e-4, rtol=0)


def test_an_image_that_does_not_divide_into_patches_is_an_error(encoder):
    with pytest.raises(ValueError, match="20x16"):
        encoder(torch.rand(1, 3, 20, 16), torch.randn(1, 16))


def test_heads_that_do_not_divide_the_width_are_an_error():
    with pytest.raises(BadInput, match="multiple of num_heads 5"):
        ViTConfig.load({"width": 24, "num_heads": 5})
