"""Samples of stage 1: pixels, and cameras that match them after cropping and augmentation."""

import dataclasses

import numpy as np
import pytest
import torch

from core.errors import BadInput, WorkFailed
from core.storage import Storage
from dataset.snapshots.snapshot import open_snapshot
from train.data.augment import AugmentConfig, draw_augmentation
from train.data.patches import ViewDataConfig, ViewDataset

NO_AUGMENTATION = AugmentConfig(rotation=0, scaling=0, camera_noise=0)
CONFIG = ViewDataConfig(
    num_inputs=3, num_targets=2, patch_size=32, target_size_min=48, target_size_max=64
)


def make_dataset(sphere_dataset, **changes) -> ViewDataset:
    root, snapshot = sphere_dataset
    config = CONFIG.model_copy(update=changes)
    samples = open_snapshot(root, snapshot).samples
    return ViewDataset(root, samples, config, input_size=40, seed=5)


def test_shapes_and_ranges(sphere_dataset):
    item = make_dataset(sphere_dataset)[0]
    assert item["images"].shape == (3, 3, 40, 40)
    assert item["target_rgb"].shape == (5, 3, 32, 32)
    assert item["target_alpha"].shape == (5, 1, 32, 32)
    assert all(item[name].min() >= 0 and item[name].max() <= 1 for name in ("images", "target_rgb"))


def test_an_item_is_a_function_of_its_position(sphere_dataset):
    first, again, other = (
        make_dataset(sphere_dataset)[7],
        make_dataset(sphere_dataset)[7],
        make_dataset(sphere_dataset)[8],
    )
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
    assert not torch.equal(first["images"], other["images"])


@pytest.mark.parametrize("augment", [NO_AUGMENTATION, AugmentConfig(camera_noise=0)])
def test_patches_match_their_cameras(sphere_dataset, augment):
    """Rays hit the sphere exactly where alpha is one."""
    dataset = make_dataset(sphere_dataset, augment=augment)
    for position in range(6):
        item = dataset[position]
        for view in range(5):
            hit = _sphere_hit(item, view)
            alpha = item["target_alpha"][view, 0] > 0.5
            assert (hit == alpha).float().mean() > 0.97


def _sphere_hit(item, view):
    """Return where rays pass the origin closer than the radius that fits alpha best."""
    side = item["target_alpha"].shape[-1]
    fx, fy, cx, cy = item["target_intrinsics"][view]
    centres = (torch.arange(side) + 0.5) / side
    x, y = (centres[None, :] - cx) / fx, -(centres[:, None] - cy) / fy
    local = torch.stack([x.expand(side, side), y.expand(side, side), -torch.ones(side, side)], -1)
    camera = item["target_camera_to_world"][view]
    directions = torch.nn.functional.normalize(local @ camera[:3, :3].T, dim=-1)
    closest = torch.linalg.cross(camera[:3, 3].expand_as(directions), directions).norm(dim=-1)
    alpha = item["target_alpha"][view, 0] > 0.5
    # Only the radius is unknown: the best threshold must separate object and background.
    candidates = closest.flatten().sort().values[::8]
    errors = torch.stack([((closest <= radius) != alpha).float().mean() for radius in candidates])
    return closest <= candidates[errors.argmin()]


def test_rotation_and_scaling_move_all_cameras_together():
    augmentation = draw_augmentation(
        AugmentConfig(rotation=1, scaling=1), np.random.default_rng(0), 2
    )
    cameras = torch.eye(4).repeat(3, 1, 1)
    cameras[:, :3, 3] = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 0, 2]])
    moved = augmentation.transform(cameras)
    between = torch.cdist(cameras[:, :3, 3], cameras[:, :3, 3])
    moved_between = torch.cdist(moved[:, :3, 3], moved[:, :3, 3])
    assert torch.allclose(moved_between, between * augmentation.scale, atol=1e-5)
    assert torch.allclose(moved[2, :2, 3], torch.zeros(2))
    assert 0.7 <= augmentation.scale <= 1.1


def test_camera_noise_is_applied_only_to_the_input_cameras(sphere_dataset):
    noisy = make_dataset(
        sphere_dataset, augment=AugmentConfig(rotation=0, scaling=0, camera_noise=0.02)
    )
    item = noisy[0]
    difference = item["camera_to_world"] - item["target_camera_to_world"][:3]
    assert 0 < difference.abs().max() <= 0.02
    assert torch.equal(difference[:, 3], torch.zeros(3, 4))


def test_a_damaged_sample_is_named(sphere_dataset, tmp_path):
    root, snapshot = sphere_dataset
    samples = open_snapshot(root, snapshot).samples
    lost = [dataclasses.replace(sample, shard="shards/gone.tar") for sample in samples]
    dataset = ViewDataset(Storage(str(tmp_path)), lost, CONFIG, input_size=40, seed=5)
    with pytest.raises(WorkFailed, match=r"objaverse:0+\d: cannot read its views in shards/gone"):
        dataset[0]


def test_a_sample_with_too_few_views_is_named(sphere_dataset):
    with pytest.raises(WorkFailed, match=r"12 views, .* need 20"):
        make_dataset(sphere_dataset, num_targets=17)[0]


def test_inconsistent_sizes_are_an_error():
    with pytest.raises(BadInput, match="patch_size 70 <= target_size_min 48"):
        CONFIG.model_copy(update={"patch_size": 70}).check()
