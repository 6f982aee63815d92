"""The image networks of Pixel2Mesh: results, key names, and which pixel each cell belongs to."""

import numpy as np
import pytest
import torch
from transformers import ResNetConfig, ResNetModel

from train.models.pixel2mesh.image_encoders import VggEncoder
from train.models.pixel2mesh.resnet import ResNetEncoder

TINY = (1, 1, 1, 1, 1, 1)


def frozen_weights(state, keys, seed):
    """Return the weights of the oracle, which follow from a frozen random stream."""
    weights = {}
    for number, key in enumerate(keys):
        shape = state[key].shape
        gain = 0.1 if key.endswith("bias") else np.sqrt(2 / np.prod(shape[1:]))
        values = np.random.RandomState(seed * 1000 + number).standard_normal(shape.numel())
        weights[key] = torch.from_numpy((values.reshape(shape) * gain).astype(np.float32))
    return weights


def test_the_18_layers_match_the_oracle_in_both_paddings(oracle):
    expected = oracle("p2m_encoder")
    with torch.device("meta"):
        networks = {"p2m": VggEncoder(), "tf": VggEncoder(padding="tensorflow")}
    state = networks["p2m"].state_dict()
    weights = frozen_weights(state, list(state), expected.config["parameter_seed"])
    for name, network in networks.items():
        network.load_state_dict(weights, assign=True)
        with torch.no_grad():
            maps = network(expected["in.image"])
        assert network.channels == tuple(one.shape[1] for one in maps) == (64, 128, 256, 512)
        for level, features in enumerate(maps, start=1):
            expected.check(features, f"out.{name}.level{level}", 1e-5)


def test_the_keys_are_the_published_ones():
    groups = (2, 3, 3, 3, 3, 4)
    names = [f"conv{a}_{b + 1}" for a, count in enumerate(groups) for b in range(count)]
    with torch.device("meta"):
        encoder, resnet = VggEncoder(), ResNetEncoder()
    assert [*encoder.state_dict()] == [f"{n}.{p}" for n in names for p in ("weight", "bias")]
    assert sum(p.numel() for p in resnet.parameters()) == 23_508_032  # ResNet-50 without `fc`
    assert len(resnet.state_dict()) == 53 * 5  # convolutions, each with a norm of four tensors


@pytest.mark.parametrize("padding", ["symmetric", "tensorflow"])
def test_a_cell_sees_the_pixels_around_its_centre(padding):
    encoder = VggEncoder(TINY, padding).double()
    for name, parameter in encoder.named_parameters():
        torch.nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 0.1)
    pixels = torch.arange(512, dtype=torch.float64)
    images = [
        torch.ones(512, 512, dtype=torch.float64),
        *torch.meshgrid(pixels, pixels, indexing="ij"),
    ]
    with torch.no_grad():
        maps = encoder(torch.stack(images)[:, None].expand(-1, 3, -1, -1))
    for features, (stride, offset) in zip(maps, encoder.grids, strict=True):
        # Without biases all is linear, so that a ramp gives the mean position of what a cell sees.
        row, column = 256 // stride, 256 // stride - 1
        total, y, x = features[:, 0, row, column].tolist()
        assert y / total == pytest.approx(stride * row + offset)
        assert x / total == pytest.approx(stride * column + offset)


def random_resnet():
    torch.manual_seed(3)
    encoder = ResNetEncoder(width=4)
    for name, value in encoder.state_dict().items():
        if ".bn" in name or name.startswith("bn") or "downsample.1" in name:
            low = 0.3 if name.endswith(("weight", "var")) else -0.3
            value.uniform_(low, 0.8)
    return encoder


def reference_key(key):
    """Return the name of one of our tensors in transformers' ResNet."""
    first, *rest = key.split(".")
    parts = {"conv": "convolution", "bn": "normalization"}
    if first in ("conv1", "bn1"):
        return ".".join(("embedder.embedder", parts[first[:-1]], *rest))
    stage = f"encoder.stages.{int(first[-1]) - 1}.layers.{rest[0]}"
    if rest[1] == "downsample":
        part = ("convolution", "normalization")[int(rest[2])]
        return f"{stage}.shortcut.{part}.{rest[3]}"
    return f"{stage}.layer.{int(rest[1][-1]) - 1}.{parts[rest[1][:-1]]}.{rest[2]}"


def test_resnet_50_equals_another_implementation_also_in_training():
    encoder = random_resnet().train()
    sizes = ResNetConfig(embedding_size=4, hidden_sizes=[16, 32, 64, 128], depths=[3, 4, 6, 3])
    reference = ResNetModel(sizes).eval()
    renamed = {reference_key(key): value for key, value in encoder.state_dict().items()}
    missing = reference.load_state_dict(renamed, strict=False)
    assert not missing.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in missing.missing_keys)
    images = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    expected = reference((images - mean) / std, output_hidden_states=True).hidden_states[1:]
    maps = encoder(images)
    assert encoder.channels == tuple(one.shape[1] for one in maps)
    for features, result, (stride, _) in zip(maps, expected, encoder.grids, strict=True):
        assert features.shape[-1] == 64 // stride
        torch.testing.assert_close(features, result, atol=1e-5, rtol=1e-4)


def test_a_picture_s_features_depend_on_no_other_picture():
    encoder = random_resnet().train()
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    images = torch.rand(3, 3, 32, 32)
    together = encoder(images)
    for i in range(3):
        for one, among in zip(encoder(images[i : i + 1]), together, strict=True):
            torch.testing.assert_close(one[0], among[i], atol=1e-5, rtol=1e-5)
    sum(one.sum() for one in together).backward()
    assert all(torch.equal(value, before[name]) for name, value in encoder.named_buffers())
    # What follows the statistics is trained.
    norm = encoder.layer3[2].bn2
    assert norm.weight.grad.abs().sum() > 0
    assert norm.bias.grad.abs().sum() > 0


def test_a_mirrored_picture_has_mirrored_features_of_resnet():
    """Cells are symmetric in a picture of 32 k + 1 pixels only if the offsets are 0."""
    encoder = random_resnet().double()
    for value in encoder.parameters():
        if value.ndim == 4:
            value.data = (value.data + value.data.flip(-1)) / 2
    images = torch.rand(1, 3, 97, 97, dtype=torch.float64)
    with torch.no_grad():
        for features, mirrored in zip(encoder(images), encoder(images.flip(-1)), strict=True):
            torch.testing.assert_close(features.flip(-1), mirrored)
    assert all(offset == 0 for _, offset in encoder.grids)


def test_an_untrained_resnet_keeps_the_size_of_its_features():
    torch.manual_seed(0)
    maps = ResNetEncoder(width=8)(torch.rand(1, 3, 64, 64))
    assert all(0.2 < one.std() < 5 for one in maps)
