"""The light of docs/reference/rendering.md, checked by the colours of a white matt sphere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.cameras import Camera, intrinsics_from_fov, look_at
from render.process import BlenderProcess
from render.render_config import RenderConfig
from tests.support.analytic_shapes import edit_glb, write_sphere

LIGHT_DIRECTION = np.array([-0.36, -0.48, 0.8])
EYES = [(0.0, -3.0, 0.0), (0.0, 3.0, 0.5), (2.0, 2.0, -1.5), (-1.5, -1.0, 2.5)]
CAMERAS = [
    Camera(camera_to_world=look_at(np.array(eye)), intrinsics=intrinsics_from_fov(45))
    for eye in EYES
]


@pytest.fixture(scope="module")
def white(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a white Lambertian sphere, without gloss."""

    def paint(document: dict[str, Any]) -> None:
        document["extensionsUsed"] = ["KHR_materials_specular"]
        document["materials"] = [
            {
                "pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 1},
                "extensions": {"KHR_materials_specular": {"specularFactor": 0}},
            }
        ]
        for mesh in document["meshes"]:
            for primitive in mesh["primitives"]:
                primitive["material"] = 0

    return edit_glb(write_sphere(tmp_path_factory.mktemp("light") / "white.glb"), paint)


def linear(srgb: np.ndarray) -> np.ndarray:
    encoded = srgb / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("strength, gradient", [(0.78, 0.28), (0.5, 0.0), (0.4, 0.5)])
def test_irradiance_of_a_convex_white_body(
    blender: BlenderProcess, white: Path, strength: float, gradient: float
):
    """A Lambertian body under radiance s + g (d . L) shows s + 2/3 g (n . L) in every channel."""
    blender.open(white, "sphere")
    config = RenderConfig(
        resolution=64, samples=64, denoise=False, light_strength=strength, light_gradient=gradient
    )
    views, _ = blender.render(CAMERAS, config)
    inner = views.rgba[..., 3] == 255
    facing = views.normals[inner] @ LIGHT_DIRECTION
    expected = strength + 2 / 3 * gradient * facing
    radiance = linear(views.rgba[inner][:, :3].astype(float))
    assert facing.min() < -0.9
    assert facing.max() > 0.9
    np.testing.assert_allclose(radiance, expected[:, None].repeat(3, axis=1), atol=0.06)
    assert abs((radiance - expected[:, None]).mean()) < 0.005


def test_the_default_light_neither_saturates_nor_hides_a_side(blender: BlenderProcess, white: Path):
    blender.open(white, "sphere")
    # min_samples: with the few samples of a plain sphere, noise would hide the light.
    config = RenderConfig(resolution=64, samples=8, min_samples=8)
    views, _ = blender.render(CAMERAS, config)
    opaque = views.rgba[views.rgba[..., 3] == 255][:, :3]
    assert (opaque == 255).mean() < 0.01
    assert opaque.min() > 190
