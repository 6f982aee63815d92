"""Random weights with the keys and shapes of LPIPS's files."""

import torch

VGG_LAYERS = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128)}
VGG_LAYERS |= {12: (256, 256), 14: (256, 256), 17: (512, 256)}
VGG_LAYERS |= dict.fromkeys((19, 21, 24, 26, 28), (512, 512))
LINEAR_WIDTHS = (64, 128, 256, 512, 512)


def vgg_weights():
    """Return VGG weights under torchvision's keys, with a classifier bias that LPIPS ignores."""
    generator = torch.Generator().manual_seed(11)
    weights = {"classifier.0.bias": torch.zeros(4)}
    for index, (outputs, inputs) in VGG_LAYERS.items():
        scale = (2 / (9 * inputs)) ** 0.5
        kernel = torch.randn(outputs, inputs, 3, 3, generator=generator) * scale
        weights[f"features.{index}.weight"] = kernel
        weights[f"features.{index}.bias"] = torch.randn(outputs, generator=generator) * 0.1
    return weights


def linear_weights():
    """Return the weights of LPIPS's linear layers."""
    generator = torch.Generator().manual_seed(12)
    return {
        f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1, generator=generator)
        for i, width in enumerate(LINEAR_WIDTHS)
    }
