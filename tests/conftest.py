"""What every test shares: shape checks, the mirror, and a small dataset without Blender."""

import io
import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from jaxtyping import install_import_hook

import tests.shapes

# Before any test imports them: every jaxtyping annotation of these rooms is checked at run time.
_HOOK = install_import_hook(
    [
        "dataset.cameras",
        "dataset.encoding",
        "dataset.geometry",
        "dataset.views",
        "filters",
        "render",
        "train",
    ],
    f"{tests.shapes.__name__}.check",
)

from dataset.cameras import (
    Camera,
    intrinsics_from_fov,
    look_at,
    orbit_eye,
    rays,
)
from dataset.root import write_build
from dataset.shards import index_path, scan_tar, write_index, write_tar
from dataset.snapshot import Sample, write_snapshot
from dataset.storage import Storage
from dataset.views import ViewSet, encode_views

# The machines of a check are shared: how long one example takes says nothing.
hypothesis.settings.register_profile("shared-machine", deadline=None)
hypothesis.settings.load_profile("shared-machine")

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def mirror() -> Path:
    """A mirror of real models in Objaverse's layout, with labels.json."""
    default = REPOSITORY.parent / "shared" / "objaverse"
    folder = Path(os.environ.get("LRM_TEST_MIRROR", default))
    if not (folder / "labels.json").exists():
        pytest.skip(f"no mirror with labels.json at {folder}; set LRM_TEST_MIRROR")
    return folder


def sphere_views(seed: int, num_views: int = 12, size: int = 64) -> ViewSet:
    """Views of a shaded sphere, in closed form: no renderer is involved."""
    rng = np.random.default_rng(seed)
    radius, colour = 0.6 + 0.3 * rng.random(), rng.random(3)
    cameras, rgba, depths, normals = [], [], [], []
    for _ in range(num_views):
        eye = orbit_eye(rng.random() * 360, rng.uniform(-20, 45), rng.uniform(2, 3.5))
        camera = Camera(camera_to_world=look_at(eye), intrinsics=intrinsics_from_fov(50))
        origin, directions = rays(camera, size, size)
        a, b = (directions**2).sum(-1), directions @ origin
        inside = b * b - a * (origin @ origin - radius**2)
        hit = inside > 0
        depth = np.where(hit, (-b - np.sqrt(np.maximum(inside, 0))) / a, 0)
        normal = np.where(hit[..., None], (origin + depth[..., None] * directions) / radius, 0)
        shade = np.where(hit[..., None], colour * (0.5 + 0.5 * normal[..., 2:]), 0)
        rgba.append(np.concatenate([shade, hit[..., None]], axis=-1))
        depths.append(depth)
        normals.append(normal)
        cameras.append(camera)
    return ViewSet(
        cameras=cameras,
        rgba=np.rint(np.stack(rgba).clip(0, 1) * 255).astype(np.uint8),
        depth=np.stack(depths).astype(np.float32),
        normals=np.stack(normals).astype(np.float32),
    )


@pytest.fixture(scope="session")
def sphere_dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, str]:
    """A root with one shard of six spheres, and the id of a snapshot of them all."""
    root = Storage(str(tmp_path_factory.mktemp("spheres")))
    ids = [f"{number:032x}" for number in range(6)]
    views = [dict(encode_views(sphere_views(seed), {})) for seed in range(6)]
    tar = io.BytesIO()
    write_tar(tar, [(f"objaverse-{uid}", members) for uid, members in zip(ids, views, strict=True)])
    tar.seek(0)
    entries = list(scan_tar(tar))
    shard = "shards/test/spheres.tar"
    root.write(shard, tar.getvalue())
    root.write(index_path(shard), write_index(entries, "", len(tar.getvalue())))
    samples = [
        Sample(
            asset_id=f"objaverse:{uid}",
            split="train",
            rig="test",
            sha256="",
            render_key="",
            shard=shard,
            entry=entry,
            name="sphere",
            caption="a sphere",
            licence="by",
            author="nobody",
        )
        for uid, entry in zip(ids, entries, strict=True)
    ]
    write_build(root, {})
    return root, write_snapshot(root, samples, None)["snapshot"]
