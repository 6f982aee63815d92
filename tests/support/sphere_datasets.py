"""Datasets of shaded spheres that are computed without a renderer, for tests of training."""

import io
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import trimesh

from core.storage import Storage
from dataset.cameras import (
    Camera,
    intrinsics_from_fov,
    look_at,
    orbit_eye,
    rays,
)
from dataset.format.geometry import SurfaceGeometry, geometry_path, write_geometry
from dataset.format.shards import index_path, scan_tar, write_index, write_tar
from dataset.root import write_build
from dataset.snapshots.snapshot import Sample, open_snapshot, write_snapshot
from dataset.views import ViewSet, encode_views
from render.rigs import RIGS, get_rig

__all__ = [
    "add_sphere_geometry",
    "sphere_radius",
    "sphere_surface",
    "sphere_views",
    "with_validation",
    "write_sphere_dataset",
]


def sphere_radius(seed: int) -> float:
    """Return the radius of the sphere with a seed, which is its number in a dataset."""
    return 0.6 + 0.3 * np.random.default_rng(seed).random()


def sphere_surface(seed: int, num_points: int = 12_000) -> SurfaceGeometry:
    """Return exact points and normals of a sphere, and a mesh with its vertices on the sphere."""
    directions = np.random.default_rng((seed, 1)).normal(size=(num_points, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    radius = sphere_radius(seed)
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=radius)
    return SurfaceGeometry(
        points=(radius * directions).astype(np.float32),
        normals=directions.astype(np.float32),
        vertices=mesh.vertices.astype(np.float32),
        faces=mesh.faces.astype(np.int32),
    )


def sphere_views(
    seed: int, num_views: int = 12, size: int = 64, cameras: Sequence[Camera] = ()
) -> ViewSet:
    """Return views of a shaded sphere, computed from its equation.

    Radius and colour depend on the seed; without `cameras`, `num_views` random ones are used.
    """
    rng = np.random.default_rng(seed)
    radius, colour = sphere_radius(seed), rng.random(4)[1:]
    cameras = cameras or [_random_camera(rng) for _ in range(num_views)]
    rgba, depths, normals = [], [], []
    for camera in cameras:
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
    return ViewSet(
        cameras=list(cameras),
        rgba=np.rint(np.stack(rgba).clip(0, 1) * 255).astype(np.uint8),
        depth=np.stack(depths).astype(np.float32),
        normals=np.stack(normals).astype(np.float32),
    )


def _random_camera(rng: np.random.Generator) -> Camera:
    eye = orbit_eye(rng.random() * 360, rng.uniform(-20, 45), rng.uniform(2, 3.5))
    return Camera(camera_to_world=look_at(eye), intrinsics=intrinsics_from_fov(50))


def write_sphere_dataset(
    folder: Path,
    splits: Sequence[str] = ("train",) * 6,
    *,
    rig: str = "test",
    size: int = 64,
) -> tuple[Storage, str]:
    """Write a root with one shard of spheres; return it and the id of a snapshot of all spheres.

    There is one sphere for each item of `splits`. The cameras are those of the rig; the rig `test`
    has 12 random ones.
    """
    root = Storage(str(folder))
    ids = [f"{number:032x}" for number in range(len(splits))]
    cameras = [get_rig(rig).cameras(uid) if rig in RIGS else [] for uid in ids]
    views = [
        dict(encode_views(sphere_views(seed, size=size, cameras=rig_cameras), {}))
        for seed, rig_cameras in enumerate(cameras)
    ]
    tar = io.BytesIO()
    write_tar(tar, [(f"objaverse-{uid}", members) for uid, members in zip(ids, views, strict=True)])
    tar.seek(0)
    entries = list(scan_tar(tar))
    shard = f"shards/{rig}/spheres.tar"
    root.write(shard, tar.getvalue())
    root.write(index_path(shard), write_index(entries, "", len(tar.getvalue())))
    samples = [
        Sample(
            asset_id=f"objaverse:{uid}",
            split=split,
            rig=rig,
            sha256="",
            render_key="",
            shard=shard,
            entry=entry,
            name="sphere",
            caption="a sphere",
            licence="by",
            author="unknown",
        )
        for uid, entry, split in zip(ids, entries, splits, strict=True)
    ]
    write_build(root, {})
    return root, write_snapshot(root, samples, None)["snapshot"]


def add_sphere_geometry(
    root: Storage, snapshot: str, numbers: Container[int] = range(1 << 30), num_points: int = 12_000
) -> str:
    """Add the geometry of spheres to a root; return the id of a snapshot that names it.

    `numbers` are those of the spheres with geometry; all by default.
    """
    samples = list(open_snapshot(root, snapshot).samples)
    for number, sample in enumerate(samples):
        if number in numbers:
            path = geometry_path("sphere", sample.asset_id[-16:])
            write_geometry(root, path, sphere_surface(number, num_points))
            samples[number] = replace(sample, geometry=path)
    return write_snapshot(root, samples, None)["snapshot"]


def with_validation(dataset: tuple[Storage, str], numbers: Container[int]) -> tuple[Storage, str]:
    """Return a root and a snapshot of the same samples, those with these numbers for validation."""
    root, snapshot = dataset
    samples = [
        replace(sample, split="validation" if number in numbers else "train")
        for number, sample in enumerate(open_snapshot(root, snapshot).samples)
    ]
    return root, write_snapshot(root, samples, None)["snapshot"]
