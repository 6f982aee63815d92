"""The image encoder: against its oracle, and what has to hold at any size."""

import pytest
import torch

from dataset.errors import BadInput
from train.models.vit import CameraViT, ViTConfig, camera_vector

SMALL = ViTConfig(num_layers=2, width=24, num_heads=3, mlp_width=40, patch_size=8, position_side=4)


def config_of(values):
    """An oracle's names for the sizes of the encoder."""
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
    encoder.load_state_dict(expected.under("state.encoder."))
    cameras = expected["in.cameras"].flatten(0, 1)
    expected.check(encoder.camera_embedder(cameras), "out.camera_embedding")
    patch = expected.config["vit"]["patch"]
    for case, (height, width) in expected.config["sizes"].items():
        positions = encoder.model.embeddings.positions(height // patch, width // patch)
        expected.check(positions, f"out.posemb_{case}")
        images = expected[f"in.images_{case}"].flatten(0, 1)
        expected.check(encoder(images, cameras), f"out.tokens_{case}")


def test_the_camera_vector_is_the_matrix_by_rows_and_the_intrinsics():
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


def test_the_position_table_is_used_as_it_is_at_its_own_size_only(encoder):
    embeddings = encoder.model.embeddings
    side = SMALL.position_side
    assert embeddings.positions(side, side) is embeddings.position_embeddings
    wide = embeddings.positions(side // 2, side * 2)
    assert wide.shape == embeddings.position_embeddings.shape
    assert not torch.allclose(wide, embeddings.position_embeddings)


def test_the_position_table_is_sampled_by_the_published_scale_factor():
    side, rows, columns = 14, 20, 24
    encoder = CameraViT(SMALL.model_copy(update={"position_side": side}))
    embeddings = encoder.model.embeddings
    ramp = torch.arange(side, dtype=torch.float32)
    with torch.no_grad():
        # Bicubic interpolation keeps straight lines: each number then tells where it was read.
        table = (100 * ramp[:, None] + ramp).flatten()
        embeddings.position_embeddings[0, 1:] = table[:, None]
    read = embeddings.positions(rows, columns)[0, 1:, 0].view(rows, columns)
    read_rows = (torch.arange(rows) + 0.5) * side / (rows + 0.1) - 0.5
    read_columns = (torch.arange(columns) + 0.5) * side / (columns + 0.1) - 0.5
    expected = 100 * read_rows[:, None] + read_columns
    inner = (slice(3, -3), slice(3, -3))
    torch.testing.assert_close(read[inner], expected[inner], atol=1e-2, rtol=0)


def test_an_image_that_does_not_divide_into_patches_is_refused(encoder):
    with pytest.raises(ValueError, match="20x16"):
        encoder(torch.rand(1, 3, 20, 16), torch.randn(1, 16))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(BadInput, match="multiple of 5 heads"):
        ViTConfig.load({"width": 24, "num_heads": 5})
