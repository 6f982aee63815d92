"""Cameras, and the encoder's camera vectors, against the oracles of the published code."""

import numpy as np
import pytest
import torch

from dataset.cameras import intrinsics_from_fov, look_at, orbit_eye, world_to_camera
from train.data.augment import Augmentation
from train.models.lrm.vit import camera_vector

NOISE = 0.02


def poses(eyes, target=None, up=(0.0, 0.0, 1.0)):
    return torch.from_numpy(np.stack([look_at(eye, target, up) for eye in eyes]))


def test_poses_and_intrinsics_match_the_oracle(oracle):
    expected = oracle("cameras")
    eyes = expected["in.positions"].numpy()
    # Straight above or below, the published pose is not a rotation, while `look_at` returns one.
    off_axis = torch.from_numpy(np.abs(eyes[:, :2]).max(axis=1) > 1e-6)
    assert off_axis.sum() >= 2
    target, up = expected["in.look_at"].numpy(), tuple(expected["in.up"].tolist())
    tolerance = {"atol": 1e-5, "rtol": 0}
    torch.testing.assert_close(
        poses(eyes)[off_axis], expected["out.look_at_origin"][off_axis], **tolerance
    )
    torch.testing.assert_close(poses(eyes, target, up), expected["out.look_at_custom"], **tolerance)
    torch.testing.assert_close(poses(eyes[:1])[0], expected["out.single"], **tolerance)
    radius = expected["in.radius"].item()
    angles = zip(expected["in.azimuths"].tolist(), expected["in.elevations"].tolist(), strict=True)
    orbit = poses([orbit_eye(azimuth, elevation, radius) for azimuth, elevation in angles])
    torch.testing.assert_close(orbit, expected["out.spherical"], **tolerance)
    ring = expected.config["circ"]
    circle = [
        orbit_eye(360 * i / ring["M"], ring["elevation"], ring["radius"]) for i in range(ring["M"])
    ]
    torch.testing.assert_close(poses(circle), expected["out.circular"], **tolerance)
    for pose in poses(eyes)[:, :3, :3]:
        torch.testing.assert_close(pose.T @ pose, torch.eye(3), **tolerance)
    for index, fov in enumerate(expected.config["fovs"]):
        fx, fy, cx, cy = intrinsics_from_fov(fov)
        matrix = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        torch.testing.assert_close(matrix, expected[f"out.intrinsics_{index}"], **tolerance)


def test_the_six_views_of_zero123plus_match_the_oracle(oracle):
    expected = oracle("cameras")
    sizes = expected.config["z123"]
    eyes = [orbit_eye(30 + 60 * i, (20, -10)[i % 2], sizes["radius"]) for i in range(6)]
    intrinsics = torch.from_numpy(intrinsics_from_fov(sizes["fov"])).expand(6, 4)
    vectors = camera_vector(poses(eyes), intrinsics).expand(sizes["batch_size"], 6, 16)
    torch.testing.assert_close(vectors, expected["out.zero123plus_cameras"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("stage", ["s1", "s2"])
def test_the_encoders_noisy_cameras_match_the_oracle(oracle, stage):
    expected = oracle("batch_prep")
    camera_to_world, matrices = expected["in.batch.input_c2ws"], expected["in.batch.input_Ks"]
    intrinsics = torch.stack(
        [matrices[..., 0, 0], matrices[..., 1, 1], matrices[..., 0, 2], matrices[..., 1, 2]], -1
    )
    for index, uniform in enumerate(expected["in.noise_u"]):
        noise = (2 * uniform - 1) * NOISE
        augmentation = Augmentation(rotation=torch.eye(3), scale=1.0, noise=noise)
        noisy = augmentation.add_noise(camera_to_world[index], intrinsics[index])
        torch.testing.assert_close(
            camera_vector(*noisy), expected[f"out.{stage}.cameras"][index], atol=1e-5, rtol=0
        )


def test_the_cameras_that_stage_two_renders_match_the_oracle(oracle):
    """Inputs come first, then targets, without noise. The published array is world-to-camera."""
    expected = oracle("batch_prep")
    parts = [expected[f"in.batch.{kind}_c2ws"] for kind in ("input", "target")]
    inverse = world_to_camera(torch.cat(parts, dim=1).numpy())
    torch.testing.assert_close(
        torch.from_numpy(inverse), expected["out.s2.render_cameras"], atol=1e-4, rtol=0
    )
