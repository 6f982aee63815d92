"""LPIPS: random weight files in the published layouts, and the lpips package if it imports."""

import importlib.util
import shutil
import sys

import pytest
import torch

from core.errors import BadInput
from tests.support.lpips_weights import VGG_LAYERS, linear_weights, vgg_weights
from train.models.lpips import Lpips, LpipsConfig, load_lpips


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a configuration with two files of random weights."""
    folder = tmp_path_factory.mktemp("lpips")
    torch.save(vgg_weights(), folder / "vgg16.pth")
    torch.save(linear_weights(), folder / "linear.pth")
    return LpipsConfig(vgg=str(folder / "vgg16.pth"), linear=str(folder / "linear.pth"))


def pairs(count=2, side=32):
    generator = torch.Generator().manual_seed(13)
    shape = (2, count, 3, side, side)
    return torch.rand(shape, generator=generator) * 2 - 1


def lpips_by_definition(a, b):
    """Compute equation 1 of the paper layer by layer."""
    vgg, linear = vgg_weights(), linear_weights()
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    features, distance, compared = [(x - shift) / scale for x in (a, b)], 0, 0
    for index in range(30):
        if f"features.{index}.weight" in vgg:
            kernel, bias = vgg[f"features.{index}.weight"], vgg[f"features.{index}.bias"]
            features = [torch.conv2d(x, kernel, bias, padding=1).relu() for x in features]
        elif index in (4, 9, 16, 23):
            features = [torch.max_pool2d(x, 2) for x in features]
        if index in (3, 8, 15, 22, 29):
            unit = [x / (x.norm(dim=1, keepdim=True) + 1e-10) for x in features]
            weight = linear[f"lin{compared}.model.1.weight"]
            distance += torch.conv2d((unit[0] - unit[1]) ** 2, weight).mean(dim=(1, 2, 3))
            compared += 1
    return distance


def test_loaded_weights_give_the_distance_of_the_definition(files):
    a, b = pairs()
    distance = load_lpips(files)(a, b)
    torch.testing.assert_close(distance, lpips_by_definition(a, b), atol=1e-6, rtol=1e-5)
    assert (distance > 1e-3).all()


def test_the_distance_matches_the_lpips_package_if_it_imports(files):
    try:
        import lpips
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"the lpips package does not import here: {error}")
    reference = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
    module = load_lpips(files)
    indices = sorted({int(name.split(".")[1]) for name in vgg_weights() if "features" in name})
    slices = reference.net
    reference_layers = [m for part in range(1, 6) for m in getattr(slices, f"slice{part}")]
    for index in indices:
        reference_layers[index].load_state_dict(module.features[index].state_dict())
    for layer, weight in enumerate(module.linear):
        reference.lins[layer].model[1].weight.data.copy_(weight.view(1, -1, 1, 1))
    a, b = pairs()
    torch.testing.assert_close(module(a, b), reference(a, b).flatten(), atol=1e-6, rtol=1e-5)


def test_the_distance_is_symmetric_differentiable_and_without_trainable_weights(files):
    lpips = load_lpips(files)
    a, b = pairs()
    assert not lpips(a, a).any()
    torch.testing.assert_close(lpips(a, b), lpips(b, a))
    assert not any(parameter.requires_grad for parameter in lpips.parameters())
    a.requires_grad_()
    lpips(a, b).sum().backward()
    assert a.grad.isfinite().all()
    assert a.grad.abs().max() > 0


def test_the_gradient_is_finite_if_all_features_are_zero(files):
    lpips = load_lpips(files)
    for index in VGG_LAYERS:
        torch.nn.init.constant_(lpips.features[index].bias, -100.0)
    a, b = pairs()
    a.requires_grad_()
    lpips(a, b).sum().backward()
    assert a.grad.isfinite().all()


def test_images_too_small_for_vgg_are_an_error():
    with pytest.raises(ValueError, match="at least 16 x 16 pixels, not 15 x 20"):
        Lpips()(torch.zeros(1, 3, 15, 20), torch.zeros(1, 3, 15, 20))


def test_a_missing_vgg_file_is_named_with_a_remedy(files, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(BadInput) as caught:
        load_lpips(LpipsConfig(linear=files.linear))
    message = str(caught.value)
    assert str(tmp_path / "checkpoints" / "vgg16-397923af.pth") in message
    assert "download https://download.pytorch.org/models/vgg16-397923af.pth" in message
    assert "--loss.lpips 0" in message


def test_the_files_are_found_in_the_hub_cache_and_in_the_wheel(files, monkeypatch, tmp_path):
    hub, wheel = tmp_path / "hub" / "checkpoints", tmp_path / "site" / "lpips"
    linear = wheel / "weights" / "v0.1"
    hub.mkdir(parents=True)
    linear.mkdir(parents=True)
    shutil.copy(files.vgg, hub / "vgg16-397923af.pth")
    shutil.copy(files.linear, linear / "vgg.pth")
    # Reading the wheel's file must not import the package.
    (wheel / "__init__.py").write_text("raise AssertionError('lpips was imported')")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.syspath_prepend(wheel.parent)
    monkeypatch.delitem(sys.modules, "lpips", raising=False)
    a, b = pairs()
    assert torch.equal(load_lpips(LpipsConfig())(a, b), load_lpips(files)(a, b))


def test_without_the_wheel_the_error_names_the_install_command(files, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"pip install --no-deps lpips==0\.1\.4"):
        load_lpips(LpipsConfig(vgg=files.vgg))


def test_the_weights_of_the_installed_wheel_can_be_loaded(files):
    if importlib.util.find_spec("lpips") is None:
        pytest.skip("the lpips wheel is not installed")
    lpips = load_lpips(LpipsConfig(vgg=files.vgg))
    assert all((weight > 0).all() for weight in lpips.linear)


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"half of a file", None])
def test_an_invalid_weight_file_is_named(files, tmp_path, content):
    wrong = tmp_path / "wrong.pth"
    if content is None:
        torch.save([1, 2, 3], wrong)
    else:
        wrong.write_bytes(content)
    with pytest.raises(BadInput, match=r"wrong\.pth (is not a weight file|holds no state dict)"):
        load_lpips(LpipsConfig(vgg=str(wrong), linear=files.linear))


def test_the_weights_of_another_network_are_an_error(files, tmp_path):
    with pytest.raises(BadInput, match=r"has nothing for features\.0\.weight"):
        load_lpips(LpipsConfig(vgg=files.linear, linear=files.linear))
    narrow = linear_weights() | {"lin3.model.1.weight": torch.rand(1, 384, 1, 1)}
    torch.save(narrow, tmp_path / "alex.pth")
    with pytest.raises(BadInput, match=r"alex\.pth has shape \(1, 384, 1, 1\) for linear\.3"):
        load_lpips(LpipsConfig(vgg=files.vgg, linear=str(tmp_path / "alex.pth")))
