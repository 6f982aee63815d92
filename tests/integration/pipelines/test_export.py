"""`lrm export`: whole objects, resumed, refused; read back by the rules of other trainers."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.storage import Storage
from dataset.snapshots.snapshot import write_snapshot
from tests.support.exports import IDS, NAMES, SHARD, Spheres, contents, write_export_spheres
from tests.support.layouts import assert_same_views, assert_trellis_sees_the_same, load_instantmesh
from tests.support.lrm import Answer, spawn_lrm


@pytest.fixture(scope="module")
def spheres(tmp_path_factory) -> Spheres:
    return write_export_spheres(tmp_path_factory.mktemp("spheres"))


@pytest.fixture(scope="module")
def exported(spheres, tmp_path_factory) -> Path:
    """The InstantMesh layout, written by two processes. Tests must not change it."""
    out = tmp_path_factory.mktemp("exported") / "new" / "folder"
    answer = spawn_lrm(*spheres.words("instantmesh", out, "--workers", "2"))
    assert answer.code == 0, answer.err
    assert answer.out == f"exported 4 of 4 objects: {out}\n"
    assert "4/4 objects (4 exported)" in answer.err
    return out


def test_instantmesh_reads_every_object(spheres, exported):
    listed = json.loads((exported / "filtered_obj_name.json").read_text())["good_objs"]
    assert listed == NAMES
    objects = exported / "rendering_random_32views"
    assert sorted(os.listdir(objects)) == sorted(NAMES)
    for asset_id, name in zip(IDS, NAMES, strict=True):
        assert_same_views(load_instantmesh(contents(objects / name)), spheres.views(asset_id))


def test_trellis_reads_every_object(spheres, tmp_path):
    found = spheres.export("trellis", tmp_path, "--json").json()
    assert found["exported"] == 4
    for asset_id, name in zip(IDS, NAMES, strict=True):
        folder, views = tmp_path / "renders" / name, spheres.views(asset_id)
        transforms = json.loads((folder / "transforms.json").read_text())
        assert_trellis_sees_the_same(transforms, views)
        for frame, rgba in zip(transforms["frames"], views.rgba, strict=True):
            assert np.array_equal(Image.open(folder / frame["file_path"]), rgba)


def test_a_split(spheres, tmp_path):
    found = spheres.export("instantmesh", tmp_path, "--split", "validation", "--json").json()
    assert (found["objects"], found["exported"], found["failed"]) == (1, 1, {})
    assert os.listdir(tmp_path / "rendering_random_32views") == NAMES[3:]
    assert json.loads((tmp_path / "filtered_obj_name.json").read_text())["good_objs"] == NAMES[3:]


def test_whole_objects_are_left_and_torn_ones_written_again(spheres, exported, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    objects = out / "rendering_random_32views"
    picture = objects / NAMES[0] / "007_depth.png"
    picture.write_bytes(picture.read_bytes()[:-1])
    (objects / NAMES[1] / "cameras.npz").unlink()
    (objects / f".{NAMES[1]}.tmp").mkdir()
    (objects / f".{NAMES[1]}.tmp" / "031.png").write_bytes(b"of an export that was killed")
    untouched = objects / NAMES[2] / "000.png"
    before = untouched.stat()
    found = spheres.export("instantmesh", out, "--json").json()
    assert (found["exported"], found["skipped"]) == (2, 2)
    assert contents(out) == contents(exported)
    assert untouched.stat().st_ino == before.st_ino


def test_another_render_replaces_the_object(spheres, exported, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    samples = spheres.samples
    # The first object's new render looks like the second object.
    samples[0] = replace(samples[0], render_key="anew", entry=samples[1].entry)
    newer = Spheres(spheres.root, write_snapshot(spheres.root, samples, None)["snapshot"])
    found = newer.export("instantmesh", out, "--json").json()
    assert (found["exported"], found["skipped"]) == (1, 3)
    objects = out / "rendering_random_32views"
    loaded = load_instantmesh(contents(objects / NAMES[0]))
    assert_same_views(loaded, spheres.views(IDS[1]))


def test_a_damaged_sample_costs_itself_alone(spheres, tmp_path):
    shutil.copytree(spheres.root.uri, tmp_path / "root")
    damaged = Spheres(Storage(str(tmp_path / "root")), spheres.snapshot)
    entry = damaged.samples[1].entry
    with open(tmp_path / "root" / SHARD, "r+b") as file:
        file.seek(entry.offsets[5] + 9)
        file.write(b"\0\0\0\0\0\0\0\0")
    answer = damaged.export("instantmesh", tmp_path / "out", "--json")
    assert answer.code == 1
    lines = answer.err.strip().splitlines()
    assert "1 objects could not be exported" in lines[-1]
    assert IDS[1] in lines[-1]
    assert "fails its checksum" in lines[-1]
    found = json.loads(answer.out)
    assert list(found["failed"]) == [IDS[1]]
    listed = json.loads((tmp_path / "out" / "filtered_obj_name.json").read_text())["good_objs"]
    assert listed == [NAMES[0], *NAMES[2:]]
    assert sorted(os.listdir(tmp_path / "out" / "rendering_random_32views")) == sorted(listed)


def refused(answer: Answer, *parts: str) -> None:
    assert answer.code == 2, (answer.out, answer.err)
    assert answer.out == ""
    lines = answer.err.strip().splitlines()
    assert len(lines) == 1, answer.err
    for part in ("error: ", *parts):
        assert part in lines[0]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--layout", "instant-mesh"], ["'instant-mesh'", "did you mean 'instantmesh'?"]),
        (["--layout", "colmap"], ["there are: instantmesh, trellis"]),
        (["--split", "test"], ["--split", "'validation'"]),
        (["--snapshot", "0000"], ["no snapshot '0000'; there are: "]),
        (["--workers", "0"], ["--workers must be at least 1"]),
        (["--out", "s3://bucket/key"], ["s3://bucket/key", "local folder"]),
    ],
)
def test_wrong_options(spheres, tmp_path, options, parts):
    refused(spheres.export("trellis", tmp_path / "out", *options), *parts)
    assert os.listdir(tmp_path) == []


def test_the_closest_snapshot_is_named(spheres, tmp_path):
    mistyped = spheres.snapshot[:5] + "x" + spheres.snapshot[6:]
    answer = spheres.export("trellis", tmp_path / "out", "--snapshot", mistyped)
    refused(answer, f"did you mean {spheres.snapshot!r}?")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_a_file(spheres, tmp_path):
    (tmp_path / "file").write_text("")
    refused(spheres.export("trellis", tmp_path / "file"), "is not a folder")
    refused(spheres.export("trellis", tmp_path / "file" / "out"), "cannot write to this folder")


def test_a_split_without_samples(spheres, tmp_path):
    only = write_snapshot(spheres.root, spheres.samples[:1], None)["snapshot"]
    answer = Spheres(spheres.root, only).export("trellis", tmp_path, "--split", "validation")
    refused(answer, "no sample in the split 'validation'")


def test_what_does_not_fit_is_refused_before_anything_is_written(sphere_dataset, tmp_path):
    """Twelve views, and nobody says how the objects were normalised: the rig is named."""
    answer = Spheres(*sphere_dataset).export("instantmesh", tmp_path / "out")
    refused(answer, "objaverse:", "(rig test)", "does not fit the layout instantmesh", "the cube")
    assert os.listdir(tmp_path) == []
