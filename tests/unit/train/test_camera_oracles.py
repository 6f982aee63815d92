"""Cameras as the published code makes them and feeds them to the encoder, against the oracles."""

import numpy as np
import pytest
import torch

from dataset.cameras import intrinsics_from_fov, look_at, orbit_eye, world_to_camera
from train.data.augment import Augmentation
from train.models.lrm.vit import camera_vector

NOISE = 0.02


def poses(eyes, target=None, up=(0.0, 0.0, 1.0)):
    return torch.from_numpy(np.stack([look_at(eye, target, up) for eye in eyes]))


def test_poses_and_lenses_match_the_oracle(oracle):
    expected = oracle("cameras")
    eyes = expected["in.positions"].numpy()
    # Straight above or below, the published pose is no rotation; ours is one.
    aside = torch.from_numpy(np.abs(eyes[:, :2]).max(axis=1) > 1e-6)
    assert aside.sum() >= 2
    target, up = expected["in.look_at"].numpy(), tuple(expected["in.up"].tolist())
    close = {"atol": 1e-5, "rtol": 0}
    torch.testing.assert_close(poses(eyes)[aside], expected["out.look_at_origin"][aside], **close)
    torch.testing.assert_close(poses(eyes, target, up), expected["out.look_at_custom"], **close)
    torch.testing.assert_close(poses(eyes[:1])[0], expected["out.single"], **close)
    radius = expected["in.radius"].item()
    angles = zip(expected["in.azimuths"].tolist(), expected["in.elevations"].tolist(), strict=True)
    orbit = poses([orbit_eye(azimuth, elevation, radius) for azimuth, elevation in angles])
    torch.testing.assert_close(orbit, expected["out.spherical"], **close)
    ring = expected.config["circ"]
    circle = [
        orbit_eye(360 * i / ring["M"], ring["elevation"], ring["radius"]) for i in range(ring["M"])
    ]
    torch.testing.assert_close(poses(circle), expected["out.circular"], **close)
    for matrix in poses(eyes)[:, :3, :3]:
        torch.testing.assert_close(matrix.T @ matrix, torch.eye(3), **close)
    for number, fov in enumerate(expected.config["fovs"]):
        fx, fy, cx, cy = intrinsics_from_fov(fov)
        lens = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        torch.testing.assert_close(lens, expected[f"out.intrinsics_{number}"], **close)


def test_the_six_views_of_zero123plus_match_the_oracle(oracle):
    expected = oracle("cameras")
    sizes = expected.config["z123"]
    eyes = [orbit_eye(30 + 60 * i, (20, -10)[i % 2], sizes["radius"]) for i in range(6)]
    lens = torch.from_numpy(intrinsics_from_fov(sizes["fov"])).expand(6, 4)
    vectors = camera_vector(poses(eyes), lens).expand(sizes["batch_size"], 6, 16)
    torch.testing.assert_close(vectors, expected["out.zero123plus_cameras"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("stage", ["s1", "s2"])
def test_the_encoders_noisy_cameras_match_the_oracle(oracle, stage):
    expected = oracle("batch_prep")
    camera_to_world, lens = expected["in.batch.input_c2ws"], expected["in.batch.input_Ks"]
    intrinsics = torch.stack(
        [lens[..., 0, 0], lens[..., 1, 1], lens[..., 0, 2], lens[..., 1, 2]], -1
    )
    for number, uniform in enumerate(expected["in.noise_u"]):
        noise = (2 * uniform - 1) * NOISE
        augmentation = Augmentation(rotation=torch.eye(3), scale=1.0, noise=noise)
        noisy = augmentation.add_noise(camera_to_world[number], intrinsics[number])
        torch.testing.assert_close(
            camera_vector(*noisy), expected[f"out.{stage}.cameras"][number], atol=1e-5, rtol=0
        )


def test_the_cameras_that_stage_two_renders_match_the_oracle(oracle):
    """Inputs first, then targets, without noise: the published array is world to camera."""
    expected = oracle("batch_prep")
    parts = [expected[f"in.batch.{kind}_c2ws"] for kind in ("input", "target")]
    inverse = world_to_camera(torch.cat(parts, dim=1).numpy())
    torch.testing.assert_close(
        torch.from_numpy(inverse), expected["out.s2.render_cameras"], atol=1e-4, rtol=0
    )
