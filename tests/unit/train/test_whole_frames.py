"""What a step of stage 2 sees, against the arrays that were stored."""

import numpy as np
import pytest
import torch

from dataset.cameras import Camera, rays
from dataset.format.shards import read_members
from dataset.snapshots.snapshot import open_snapshot
from dataset.views import decode_views
from train.data.augment import AugmentConfig, draw_augmentation
from train.data.order import sample_at, sample_rng
from train.data.patches import ViewDataConfig, ViewDataset
from train.data.whole_frames import FrameDataConfig, FrameDataset

SEED, POSITION = 5, 7
ALL = AugmentConfig(rotation=1, scaling=1)
VIEWS = {"num_inputs": 2, "num_targets": 2, "augment": ALL}


@pytest.fixture(scope="module")
def stored(sphere_dataset):
    """The object at POSITION: its views as they were chosen, and their augmentation."""
    root, snapshot = sphere_dataset
    samples = open_snapshot(root, snapshot).samples
    sample = samples[sample_at(POSITION, len(samples), SEED)]
    members = read_members(root, sample.shard, sample.entry, sample.entry.members)
    views, _ = decode_views(members)
    rng = sample_rng(SEED, POSITION)
    chosen = rng.choice(len(views.cameras), 4, replace=False)
    return views, chosen, draw_augmentation(ALL, rng, 2)


def item_of(sphere_dataset, size):
    root, snapshot = sphere_dataset
    samples = open_snapshot(root, snapshot).samples
    config = FrameDataConfig(**VIEWS, frame_size=size)
    return FrameDataset(root, samples, config, input_size=40, seed=SEED)[POSITION]


def points_of(camera_to_world, intrinsics, depth):
    camera = Camera(camera_to_world=np.asarray(camera_to_world), intrinsics=np.asarray(intrinsics))
    origin, directions = rays(camera, *depth.shape)
    return (origin + depth[..., None] * directions)[depth > 0]


def test_native_frames_are_the_stored_arrays_in_the_turned_and_scaled_world(sphere_dataset, stored):
    views, chosen, augmentation = stored
    assert augmentation.scale != 1
    item, turn = item_of(sphere_dataset, 64), augmentation.rotation.numpy()
    for row, view in enumerate(chosen):
        depth, normals = views.depth[view], views.normals[view]
        assert np.array_equal(
            item["target_depth"][row, 0], torch.from_numpy(depth) * augmentation.scale
        )
        turned = item["target_normals"][row].permute(1, 2, 0).numpy()
        assert np.allclose(turned, normals @ turn.T, atol=1e-6)
        alpha = torch.from_numpy(views.rgba[view][..., 3] / 255).float()
        assert torch.allclose(item["target_alpha"][row, 0], alpha, atol=1e-6)
        camera = views.cameras[view]
        before = points_of(camera.camera_to_world, camera.intrinsics, depth)
        seen = [item[f"target_{name}"][row] for name in ("camera_to_world", "intrinsics")]
        after = points_of(*seen, item["target_depth"][row, 0].numpy())
        assert np.allclose(after, augmentation.scale * before @ turn.T, atol=1e-5)
    # Noise is on what the model is told alone.
    apart = (item["camera_to_world"] - item["target_camera_to_world"][:2]).abs()
    assert 0 < apart.max() <= ALL.camera_noise


@pytest.mark.parametrize("size", [32, 48, 100])
def test_other_sizes_hold_no_depth_and_no_normal_that_was_not_stored(sphere_dataset, stored, size):
    views, chosen, augmentation = stored
    item = item_of(sphere_dataset, size)
    assert item["target_rgb"].shape == (4, 3, size, size)
    depth, normals = item["target_depth"], item["target_normals"]
    known = torch.from_numpy(views.depth[chosen]) * augmentation.scale
    assert torch.isin(depth, known).all()
    length = normals.norm(dim=1, keepdim=True)
    assert torch.allclose(length, (depth > 0).float(), atol=1e-5)
    # A sphere: where a pixel's centre is seen is its radius, give or take half a native pixel.
    radius = (
        augmentation.scale
        * np.linalg.norm(
            points_of(
                views.cameras[0].camera_to_world, views.cameras[0].intrinsics, views.depth[0]
            ),
            axis=1,
        ).mean()
    )
    for row in range(4):
        seen = [item[f"target_{name}"][row] for name in ("camera_to_world", "intrinsics")]
        points = points_of(*seen, depth[row, 0].numpy())
        error = np.abs(np.linalg.norm(points, axis=1) - radius)
        assert error.mean() < 0.02
        assert len(points) > 0.9 * (known[row] > 0).sum() * (size / 64) ** 2


def test_both_stages_see_the_same_views_in_the_same_world(sphere_dataset):
    """So previews of stage 1 can take their targets from the frames of stage 2."""
    root, snapshot = sphere_dataset
    samples = open_snapshot(root, snapshot).samples
    sizes = {"patch_size": 16, "target_size_min": 24, "target_size_max": 32}
    config = ViewDataConfig(**VIEWS, **sizes)
    patches = ViewDataset(root, samples, config, input_size=40, seed=SEED)[POSITION]
    frames = item_of(sphere_dataset, 32)
    for name in ("images", "camera_to_world", "intrinsics", "target_camera_to_world"):
        assert torch.equal(patches[name], frames[name]), name
