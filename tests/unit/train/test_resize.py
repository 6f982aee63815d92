"""Resizing of pictures: which kinds are filtered, and the resizing of the published code."""

import pytest
import torch

from train.data.resize import resize


def test_depth_and_normals_are_those_of_the_pixel_at_the_new_centre():
    native = torch.arange(81.0).view(1, 1, 9, 9)
    pictures = {"depth": native, "normals": native.expand(1, 3, 9, 9)}
    third = resize(pictures, 3)
    assert torch.equal(third["depth"], native[..., 1::3, 1::3])
    assert torch.equal(third["normals"], third["depth"].expand(1, 3, 3, 3))
    twice = resize(pictures, 18)["depth"]
    assert all(torch.equal(twice[..., i::2, j::2], native) for i in (0, 1) for j in (0, 1))
    assert resize(pictures, 9)["depth"] is native


def test_colour_and_alpha_are_filtered():
    board = (torch.arange(64) % 2 * 1.0).view(1, 1, 8, 8)
    board = (board + board.mT) % 2
    half = resize({"rgb": board.expand(1, 3, 8, 8), "alpha": board}, 4)
    assert half["alpha"].min() > 0.3
    assert half["alpha"].max() < 0.7
    assert torch.equal(half["rgb"], half["alpha"].expand(1, 3, 4, 4))


@pytest.mark.parametrize("stage", ["s1", "s2"])
def test_published_resizing_matches_the_oracle(oracle, stage):
    expected = oracle("batch_prep")
    batch = expected.with_prefix("in.batch.")
    sizes = expected.config[stage]
    names = {"rgb": "images", "alpha": "alphas", "depth": "depths", "normals": "normals"}
    window = (slice(None),) * 2
    if stage == "s1":
        names.pop("normals")  # the released stage 1 has none
        top, left, height, width = sizes["crop"]
        window = (..., slice(top, top + height), slice(left, left + width))
    for index in range(expected.config["B"]):
        given = {
            name: torch.cat([batch[f"{role}_{oracle_name}"][index] for role in ("input", "target")])
            for name, oracle_name in names.items()
        }
        side = sizes.get("drawn_size", sizes["render_size"])
        for name, values in resize(given, side, published=True).items():
            reference = expected[f"out.{stage}.target_{names[name]}"][index]
            torch.testing.assert_close(values[window], reference, atol=1e-5, rtol=0)
        inputs = {"rgb": batch["input_images"][index]}
        inputs = resize(inputs, expected.config["input_size"], published=True)["rgb"]
        torch.testing.assert_close(
            inputs, expected[f"out.{stage}.images"][index], atol=1e-5, rtol=0
        )
