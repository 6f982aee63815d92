"""Samples of stage 2, against the arrays that are stored in the shards."""

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
AUGMENT = AugmentConfig(rotation=1, scaling=1)
VIEWS = {"num_inputs": 2, "num_targets": 2, "augment": AUGMENT}


@pytest.fixture(scope="module")
def stored(sphere_dataset):
    """Return the object at POSITION: its views, the ids of the chosen ones, the augmentation."""
    root, snapshot = sphere_dataset
    samples = open_snapshot(root, snapshot).samples
    sample = samples[sample_at(POSITION, len(samples), SEED)]
    members = read_members(root, sample.shard, sample.entry, sample.entry.members)
    views, _ = decode_views(members)
    rng = sample_rng(SEED, POSITION)
    view_ids = rng.choice(len(views.cameras), 4, replace=False)
    return views, view_ids, draw_augmentation(AUGMENT, rng, 2)


def item_of(sphere_dataset, size):
    root, snapshot = sphere_dataset
    samples = open_snapshot(root, snapshot).samples
    config = FrameDataConfig(**VIEWS, frame_size=size)
    return FrameDataset(root, samples, config, input_size=40, seed=SEED)[POSITION]


def points_of(camera_to_world, intrinsics, depth):
    camera = Camera(camera_to_world=np.asarray(camera_to_world), intrinsics=np.asarray(intrinsics))
    origin, directions = rays(camera, *depth.shape)
    return (origin + depth[..., None] * directions)[depth > 0]


def test_native_frames_are_the_stored_arrays_in_the_rotated_and_scaled_world(
    sphere_dataset, stored
):
    views, view_ids, augmentation = stored
    assert augmentation.scale != 1
    item, rotation = item_of(sphere_dataset, 64), augmentation.rotation.numpy()
    for row, view in enumerate(view_ids):
        depth, normals = views.depth[view], views.normals[view]
        assert np.array_equal(
            item["target_depth"][row, 0], torch.from_numpy(depth) * augmentation.scale
        )
        rotated = item["target_normals"][row].permute(1, 2, 0).numpy()
        assert np.allclose(rotated, normals @ rotation.T, atol=1e-6)
        alpha = torch.from_numpy(views.rgba[view][..., 3] / 255).float()
        assert torch.allclose(item["target_alpha"][row, 0], alpha, atol=1e-6)
        camera = views.cameras[view]
        stored_points = points_of(camera.camera_to_world, camera.intrinsics, depth)
        camera_parts = [item[f"target_{name}"][row] for name in ("camera_to_world", "intrinsics")]
        points = points_of(*camera_parts, item["target_depth"][row, 0].numpy())
        assert np.allclose(points, augmentation.scale * stored_points @ rotation.T, atol=1e-5)
    # Noise is applied only to the input cameras, not to those of the targets.
    difference = (item["camera_to_world"] - item["target_camera_to_world"][:2]).abs()
    assert 0 < difference.max() <= AUGMENT.camera_noise


@pytest.mark.parametrize("size", [32, 48, 100])
def test_resized_frames_hold_only_stored_depths_and_unit_normals(sphere_dataset, stored, size):
    views, view_ids, augmentation = stored
    item = item_of(sphere_dataset, size)
    assert item["target_rgb"].shape == (4, 3, size, size)
    depth, normals = item["target_depth"], item["target_normals"]
    stored_depth = torch.from_numpy(views.depth[view_ids]) * augmentation.scale
    assert torch.isin(depth, stored_depth).all()
    length = normals.norm(dim=1, keepdim=True)
    assert torch.allclose(length, (depth > 0).float(), atol=1e-5)
    # The distance of each point from the centre is the radius of the sphere, up to half a pixel.
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
        camera_parts = [item[f"target_{name}"][row] for name in ("camera_to_world", "intrinsics")]
        points = points_of(*camera_parts, depth[row, 0].numpy())
        error = np.abs(np.linalg.norm(points, axis=1) - radius)
        assert error.mean() < 0.02
        assert len(points) > 0.9 * (stored_depth[row] > 0).sum() * (size / 64) ** 2


def test_both_stages_have_the_same_views_in_the_same_world(sphere_dataset):
    """Previews of stage 1 rely on this: their targets are the frames of stage 2."""
    root, snapshot = sphere_dataset
    samples = open_snapshot(root, snapshot).samples
    sizes = {"patch_size": 16, "target_size_min": 24, "target_size_max": 32}
    config = ViewDataConfig(**VIEWS, **sizes)
    patches = ViewDataset(root, samples, config, input_size=40, seed=SEED)[POSITION]
    frames = item_of(sphere_dataset, 32)
    for name in ("images", "camera_to_world", "intrinsics", "target_camera_to_world"):
        assert torch.equal(patches[name], frames[name]), name
