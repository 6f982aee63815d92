"""`lrm export`: exports are complete, resumed or refused, and other trainers read them."""

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
from tests.support.exports import (
    IDS,
    NAMES,
    SHARD,
    ExportDataset,
    file_contents,
    write_export_dataset,
)
from tests.support.layouts import (
    assert_same_trellis_projection,
    assert_same_views,
    load_instantmesh,
)
from tests.support.lrm import Answer, spawn_lrm


@pytest.fixture(scope="module")
def spheres(tmp_path_factory) -> ExportDataset:
    return write_export_dataset(tmp_path_factory.mktemp("spheres"))


@pytest.fixture(scope="module")
def exported(spheres, tmp_path_factory) -> Path:
    """Return an export in the InstantMesh layout by two processes. Tests must not change it."""
    out = tmp_path_factory.mktemp("exported") / "new" / "folder"
    answer = spawn_lrm(*spheres.words("instantmesh", out, "--workers", "2"))
    assert answer.code == 0, answer.err
    assert answer.out == f"exported 4 of 4 objects: {out}\n"
    assert "4 of 4 objects (4 exported)" in answer.err
    return out


def test_instantmesh_reads_every_object(spheres, exported):
    listed = json.loads((exported / "filtered_obj_name.json").read_text())["good_objs"]
    assert listed == NAMES
    objects = exported / "rendering_random_32views"
    assert sorted(os.listdir(objects)) == sorted(NAMES)
    for asset_id, name in zip(IDS, NAMES, strict=True):
        assert_same_views(load_instantmesh(file_contents(objects / name)), spheres.views(asset_id))


def test_trellis_reads_every_object(spheres, tmp_path):
    report = spheres.export("trellis", tmp_path, "--json").json()
    assert report["exported"] == 4
    for asset_id, name in zip(IDS, NAMES, strict=True):
        folder, views = tmp_path / "renders" / name, spheres.views(asset_id)
        transforms = json.loads((folder / "transforms.json").read_text())
        assert_same_trellis_projection(transforms, views)
        for frame, rgba in zip(transforms["frames"], views.rgba, strict=True):
            assert np.array_equal(Image.open(folder / frame["file_path"]), rgba)


def test_a_split_is_exported_alone(spheres, tmp_path):
    report = spheres.export("instantmesh", tmp_path, "--split", "validation", "--json").json()
    assert (report["objects"], report["exported"], report["failed"]) == (1, 1, {})
    assert os.listdir(tmp_path / "rendering_random_32views") == NAMES[3:]
    assert json.loads((tmp_path / "filtered_obj_name.json").read_text())["good_objs"] == NAMES[3:]


def test_complete_objects_are_kept_and_incomplete_ones_written_again(spheres, exported, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    objects = out / "rendering_random_32views"
    picture = objects / NAMES[0] / "007_depth.png"
    picture.write_bytes(picture.read_bytes()[:-1])
    (objects / NAMES[1] / "cameras.npz").unlink()
    (objects / f".{NAMES[1]}.tmp").mkdir()
    (objects / f".{NAMES[1]}.tmp" / "031.png").write_bytes(b"rest of a killed export")
    untouched = objects / NAMES[2] / "000.png"
    before = untouched.stat()
    report = spheres.export("instantmesh", out, "--json").json()
    assert (report["exported"], report["skipped"]) == (2, 2)
    assert file_contents(out) == file_contents(exported)
    assert untouched.stat().st_ino == before.st_ino


def test_another_render_replaces_the_object(spheres, exported, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    samples = spheres.samples
    # The first object's new render looks like the second object.
    samples[0] = replace(samples[0], render_key="new", entry=samples[1].entry)
    newer = ExportDataset(spheres.root, write_snapshot(spheres.root, samples, None)["snapshot"])
    report = newer.export("instantmesh", out, "--json").json()
    assert (report["exported"], report["skipped"]) == (1, 3)
    objects = out / "rendering_random_32views"
    loaded = load_instantmesh(file_contents(objects / NAMES[0]))
    assert_same_views(loaded, spheres.views(IDS[1]))
    assert report["others"] == []
    # Objects that a later export into the same folder does not include are not silent.
    (objects / "notes").mkdir()
    split = ("instantmesh", out, "--split", "validation")
    assert newer.export(*split, "--json").json()["others"] == NAMES[:3]
    (warning,) = newer.export(*split).err.splitlines()[1:]
    assert f"warning: {out} also has 3 objects of an earlier export, such as {NAMES[0]}" in warning


def test_a_damaged_sample_fails_alone(spheres, tmp_path):
    shutil.copytree(spheres.root.uri, tmp_path / "root")
    damaged = ExportDataset(Storage(str(tmp_path / "root")), spheres.snapshot)
    entry = damaged.samples[1].entry
    with open(tmp_path / "root" / SHARD, "r+b") as file:
        file.seek(entry.offsets[5] + 9)
        file.write(b"\0\0\0\0\0\0\0\0")
    answer = damaged.export("instantmesh", tmp_path / "out", "--json")
    assert answer.code == 1
    lines = answer.err.strip().splitlines()
    assert "1 object could not be exported" in lines[-1]
    assert IDS[1] in lines[-1]
    assert "fails its checksum" in lines[-1]
    assert f"; `lrm verify --root {damaged.root.uri}` says what to do" in lines[-1]
    report = json.loads(answer.out)
    assert list(report["failed"]) == [IDS[1]]
    listed = json.loads((tmp_path / "out" / "filtered_obj_name.json").read_text())["good_objs"]
    assert listed == [NAMES[0], *NAMES[2:]]
    assert sorted(os.listdir(tmp_path / "out" / "rendering_random_32views")) == sorted(listed)


def assert_refused(answer: Answer, *parts: str) -> None:
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
def test_wrong_options_are_refused(spheres, tmp_path, options, parts):
    assert_refused(spheres.export("trellis", tmp_path / "out", *options), *parts)
    assert os.listdir(tmp_path) == []


def test_the_closest_snapshot_id_is_suggested(spheres, tmp_path):
    mistyped = spheres.snapshot[:5] + "x" + spheres.snapshot[6:]
    answer = spheres.export("trellis", tmp_path / "out", "--snapshot", mistyped)
    assert_refused(answer, f"did you mean {spheres.snapshot!r}?")
    assert os.listdir(tmp_path) == []


def test_an_output_that_is_a_file_is_refused(spheres, tmp_path):
    (tmp_path / "file").write_text("")
    assert_refused(spheres.export("trellis", tmp_path / "file"), "is not a folder")
    assert_refused(
        spheres.export("trellis", tmp_path / "file" / "out"), "cannot write to this folder"
    )


def test_an_empty_split_is_refused(spheres, tmp_path):
    snapshot = write_snapshot(spheres.root, spheres.samples[:1], None)["snapshot"]
    answer = ExportDataset(spheres.root, snapshot).export(
        "trellis", tmp_path, "--split", "validation"
    )
    assert_refused(answer, "no sample in the split 'validation'")


def test_samples_that_do_not_fit_the_layout_are_refused_before_writing(sphere_dataset, tmp_path):
    """The samples have twelve views and no normalisation; the message names the rig."""
    answer = ExportDataset(*sphere_dataset).export("instantmesh", tmp_path / "out")
    assert_refused(
        answer, "objaverse:", "(rig test)", "does not fit the layout instantmesh", "the cube"
    )
    assert os.listdir(tmp_path) == []
