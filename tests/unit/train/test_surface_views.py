"""Views with surface points: the scaled camera frame, reflection, damage and failing storages."""

import dataclasses
import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from core.errors import FinalFailure, WorkFailed
from core.storage import Storage
from dataset.cameras import Camera, project
from dataset.format.geometry import SurfacePoints, read_geometry
from dataset.format.shards import read_members, scan_tar, write_tar
from dataset.snapshots.snapshot import Sample, open_snapshot
from dataset.views import META_MEMBER, ViewSet, decode_views
from tests.support.sphere_datasets import sphere_radius
from train.data.order import candidates_at, sample_at
from train.data.sample_dataset import Item
from train.data.surface_views import (
    CAMERA_DISTANCE,
    SurfaceDataConfig,
    SurfaceViewDataset,
    _mirrored,
    draw_points,
)

SEED, NUM_SPHERES, SIZE = 5, 6, 64
Dataset = tuple[Storage, str]


def make_dataset(
    root: Storage, samples, *, flip: float = 0.5, size: int = SIZE, seed: int = SEED
) -> SurfaceViewDataset:
    return SurfaceViewDataset(
        root, samples, SurfaceDataConfig(flip=flip), image_size=size, seed=seed
    )


def is_equal(item: Item, other: Item) -> bool:
    return item.keys() == other.keys() and all(
        torch.equal(item[name], other[name]) for name in item
    )


def truth_of(root: Storage, sample: Sample, item: Item) -> tuple[Camera, np.ndarray, np.ndarray]:
    """Return the camera of an item, which its scale tells, and the view's depth and alpha."""
    members = read_members(root, sample.shard, sample.entry, sample.entry.members)
    views: ViewSet = decode_views(members)[0]
    distances = [np.linalg.norm(camera.camera_to_world[:3, 3]) for camera in views.cameras]
    view = int(np.argmin(np.abs(np.array(distances) - CAMERA_DISTANCE / float(item["scale"]))))
    return views.cameras[view], views.depth[view], views.rgba[view]


@pytest.mark.parametrize("position", range(4))
def test_points_project_to_where_the_picture_shows_them(surface_dataset: Dataset, position: int):
    root, snapshot = surface_dataset
    samples = open_snapshot(root, snapshot).samples
    item = make_dataset(root, samples, flip=0)[position]
    number = sample_at(position, NUM_SPHERES, SEED)
    camera, depth_map, rgba = truth_of(root, samples[number], item)
    points, normals = item["points"].numpy(), item["normals"].numpy()
    scale = float(item["scale"])
    centre = np.array([0, 0, -CAMERA_DISTANCE])  # all cameras look at the centre of the sphere
    np.testing.assert_allclose(points - centre, scale * sphere_radius(number) * normals, atol=2e-4)

    fx, fy, cx, cy = item["intrinsics"].numpy()
    depth = -points[:, 2]
    x, y = cx + fx * points[:, 0] / depth, cy - fy * points[:, 1] / depth
    column, row = (x * SIZE).astype(int), (y * SIZE).astype(int)
    facing = -(points * normals).sum(1) / np.linalg.norm(points, axis=1)
    seen = facing > 0.5  # no pixel of the outline, where the depth jumps
    assert seen.sum() > 1000
    assert (rgba[row, column, 3][seen] == 255).all()
    pixel = depth / (fx * SIZE)
    error = np.abs(depth - scale * depth_map[row, column])
    assert (error < pixel / facing.clip(0.1))[seen].all()
    # The picture shows the world: its brightness is that of the normal along the world's z.
    brightness = item["images"].numpy()[:, row, column].sum(0)[seen]
    upwards = normals[seen] @ camera.camera_to_world[2, :3]
    assert np.corrcoef(brightness, upwards)[0, 1] > 0.99


@pytest.mark.parametrize("position", range(3))
def test_points_are_a_slice_of_the_file_in_the_frame_of_the_camera(
    surface_dataset: Dataset, position: int
):
    root, snapshot = surface_dataset
    samples = open_snapshot(root, snapshot).samples
    item = make_dataset(root, samples, flip=0)[position]
    sample = samples[sample_at(position, NUM_SPHERES, SEED)]
    camera, _, _ = truth_of(root, sample, item)
    stored, scale = read_geometry(root, sample.geometry or ""), float(item["scale"])
    image, depth = project(camera, stored.points)
    expected = np.concatenate([image, scale * depth[:, None]], axis=1)
    at_origin = Camera(camera_to_world=np.eye(4, dtype=np.float32), intrinsics=camera.intrinsics)
    image, depth = project(at_origin, item["points"].numpy())
    own = np.concatenate([image, depth[:, None]], axis=1)
    start = int(np.argmin(np.abs(expected - own[0]).sum(1)))
    rows = (start + np.arange(len(own))) % len(expected)
    np.testing.assert_allclose(own, expected[rows], atol=1e-5)
    world = item["normals"].numpy() @ camera.camera_to_world[:3, :3].T
    np.testing.assert_allclose(world, stored.normals[rows], atol=1e-6)


def test_an_item_depends_on_the_seed_and_the_position_alone(surface_dataset: Dataset):
    root, snapshot = surface_dataset
    samples = open_snapshot(root, snapshot).samples
    first, again = make_dataset(root, samples), make_dataset(root, list(samples))
    items = [first[position] for position in range(8)]
    assert all(is_equal(again[position], items[position]) for position in reversed(range(8)))
    assert not is_equal(make_dataset(root, samples, seed=SEED + 1)[0], items[0])
    assert items[0].keys() == {"images", "intrinsics", "points", "normals", "scale"}
    assert items[0]["points"].shape == items[0]["normals"].shape == (9000, 3)
    of_sphere = [p for p in range(60) if sample_at(p, NUM_SPHERES, SEED) == 0]
    scales = {float(first[p]["scale"]) for p in of_sphere}
    assert len(scales) > 3  # other views of the same object in other epochs


def test_a_flip_is_a_reflection(surface_dataset: Dataset):
    root, snapshot = surface_dataset
    samples = open_snapshot(root, snapshot).samples
    plain, flipped, both = (make_dataset(root, samples, flip=flip) for flip in (0, 1, 0.5))
    num_flipped = 0
    for position in range(9):
        item, other, drawn = plain[position], flipped[position], both[position]
        assert torch.equal(other["images"], item["images"].flip(-1))
        mirror = torch.tensor([-1.0, 1, 1])
        for name in ("points", "normals"):
            assert torch.equal(other[name], item[name] * mirror)
        assert torch.equal(other["scale"], item["scale"])
        assert is_equal(drawn, item) or is_equal(drawn, other)
        num_flipped += is_equal(drawn, other)
    assert 1 < num_flipped < 8
    item["intrinsics"] = torch.tensor([1.1, 1.2, 0.3, 0.6])
    fx, _, cx, _ = item["intrinsics"]
    mirrored = _mirrored(item)
    x = cx + fx * item["points"][:, 0] / -item["points"][:, 2]
    mirrored_fx, _, mirrored_cx, _ = mirrored["intrinsics"]
    mirrored_x = mirrored_cx + mirrored_fx * mirrored["points"][:, 0] / -mirrored["points"][:, 2]
    assert torch.allclose(mirrored_x, 1 - x)


@pytest.mark.parametrize("stored", [1, 5, 11, 12, 40])
def test_a_small_geometry_repeats_its_points(stored: int):
    numbers = np.repeat(np.arange(stored, dtype=np.float32)[:, None], 3, axis=1)
    surface = SurfacePoints(points=numbers, normals=numbers)
    starts = set()
    for seed in range(40):
        drawn = draw_points(surface, 12, np.random.default_rng(seed))
        rows = drawn.points[:, 0].astype(int)
        assert np.array_equal(drawn.points, drawn.normals)
        assert ((rows[1:] - rows[:-1]) % stored == 1 % stored).all()
        counts = np.bincount(rows, minlength=stored)
        assert counts.max() - counts.min() <= 1
        starts.add(rows[0])
    assert len(starts) > min(stored, 20) / 2


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 255
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


DAMAGED_FILES = {"missing": Path.unlink, "flipped": flip_byte, "truncated": cut}
DAMAGED_CAMERAS = {
    "at the origin": lambda pose: [[*row[:3], 0.0] for row in pose[:3]] + pose[3:],
    "near the origin": lambda pose: [[*row[:3], 1e-30] for row in pose[:3]] + pose[3:],
    "not a number": lambda pose: [[math.nan, *row[1:]] for row in pose],
    "infinite": lambda pose: [[*row[:3], math.inf] for row in pose],
    "not rigid": lambda pose: [[2 * row[0], *row[1:]] for row in pose],
    "no matrix": lambda pose: pose[:3],
}


def with_other_cameras(root: Storage, sample: Sample, change: Callable) -> Sample:
    """Write a shard of one sample whose camera poses are changed, with valid checksums."""
    members = read_members(root, sample.shard, sample.entry, sample.entry.members)
    header = json.loads(members[META_MEMBER])
    for view in header["views"]:
        view["camera_to_world"] = change(view["camera_to_world"])
    tar = io.BytesIO()
    write_tar(tar, [(sample.entry.key, members | {META_MEMBER: json.dumps(header).encode()})])
    root.write("shards/other.tar", tar.getvalue())
    tar.seek(0)
    return dataclasses.replace(sample, shard="shards/other.tar", entry=next(scan_tar(tar)))


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        *(("geometry", damage) for damage in DAMAGED_FILES),
        *(("shard", damage) for damage in [*DAMAGED_FILES, *DAMAGED_CAMERAS]),
    ],
)
def test_the_whole_sample_is_replaced_if_a_part_is_damaged(
    surface_dataset: Dataset, tmp_path: Path, part: str, damage: str
):
    root, snapshot = surface_dataset
    samples = list(open_snapshot(root, snapshot).samples)
    first, second, *_ = candidates_at(0, NUM_SPHERES, SEED, 2)
    expected = make_dataset(root, [samples[second]] * NUM_SPHERES)[0]
    shutil.copytree(root.uri, tmp_path / "d")
    copy = Storage(str(tmp_path / "d"))
    if damage in DAMAGED_CAMERAS:
        samples[first] = with_other_cameras(copy, samples[first], DAMAGED_CAMERAS[damage])
    elif part == "geometry":
        DAMAGED_FILES[damage](tmp_path / "d" / str(samples[first].geometry))
    else:
        other = tmp_path / "d/shards/other.tar"
        shutil.copy(tmp_path / "d" / samples[first].shard, other)
        samples[first] = dataclasses.replace(samples[first], shard="shards/other.tar")
        DAMAGED_FILES[damage](other)
        if damage == "flipped":  # of every picture, because the view is drawn
            other.write_bytes(bytes(byte ^ 255 for byte in other.read_bytes()))
    item, replacement = make_dataset(copy, samples).read(0)
    assert replacement is not None
    assert replacement.replaced_by == samples[second].asset_id
    (fault,) = replacement.faults
    assert fault.asset_id == samples[first].asset_id
    assert part == "shard" or str(samples[first].geometry) in fault.cause
    assert is_equal(item, expected)


def test_a_failing_storage_is_no_damage(surface_dataset: Dataset, tmp_path: Path):
    root, snapshot = surface_dataset
    samples = open_snapshot(root, snapshot).samples

    class WithoutGeometry(Storage):
        def read_immutable(self, path: str, *, cached: bool = True) -> bytes:
            raise ConnectionResetError("gone")

    with pytest.raises(WorkFailed, match=r"cannot read its geometry geometry/.*npz: gone") as error:
        make_dataset(WithoutGeometry(root.uri), samples)[0]
    assert not isinstance(error.value, FinalFailure)
    with pytest.raises(WorkFailed, match=r"cannot read its views in .*No such file"):
        make_dataset(Storage(str(tmp_path / "gone")), samples)[0]
    without = [dataclasses.replace(sample, geometry=None) for sample in samples]
    with pytest.raises(WorkFailed, match=r"^objaverse:0+[0-9a-f]: has no companion geometry$"):
        make_dataset(root, without)[0]
