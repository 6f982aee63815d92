"""The filters agree with the labels of real models, whatever models the mirror holds."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from filters.inspect_glb import GlbError, Inspection, inspect_glb
from filters.provenance import is_lowpoly_tag


@pytest.fixture(scope="module")
def labels(mirror: Path) -> dict[str, dict]:
    all_labels = json.loads((mirror / "labels.json").read_text())
    return {uid: label for uid, label in all_labels.items() if label["class"] != "missing"}


@pytest.fixture(scope="module")
def files(mirror: Path) -> dict[str, Path]:
    paths = json.loads(gzip.decompress((mirror / "object-paths.json.gz").read_bytes()))
    return {uid: mirror / path for uid, path in paths.items()}


@pytest.fixture(scope="module")
def inspected(labels, files) -> dict[str, Inspection | GlbError]:
    def inspect_file(uid: str) -> Inspection | GlbError:
        try:
            return inspect_glb(files[uid])
        except GlbError as error:
            return error

    return {uid: inspect_file(uid) for uid in labels}


def test_files_without_triangles_are_rejected(labels, inspected) -> None:
    for uid, label in labels.items():
        if not label["n_triangles"]:
            assert isinstance(inspected[uid], GlbError), (uid, label)


def test_valid_files_are_not_rejected(labels, inspected) -> None:
    for uid, label in labels.items():
        if label["class"] in ("textured", "untextured", "lowpoly", "animated", "multi_object"):
            rejected = isinstance(inspected[uid], GlbError)
            assert rejected is (label["n_triangles"] == 0), (uid, label, str(inspected[uid]))


def test_counts_equal_the_labels(labels, inspected) -> None:
    for uid, label in labels.items():
        inspection = inspected[uid]
        if isinstance(inspection, Inspection):
            assert inspection.num_images == label["n_images"], (uid, label)
            assert list(inspection.extensions_required) == sorted(label["extensions_required"])
            if "EXT_mesh_gpu_instancing" not in inspection.extensions_used:
                assert inspection.num_triangles == label["n_triangles"], (uid, label)


def test_textured_objects_agree_with_the_labels(labels, inspected) -> None:
    wrong = []
    decided = 0
    for uid, label in labels.items():
        inspection = inspected[uid]
        if isinstance(inspection, Inspection):
            decided += 1
            real = any(item.state == "detailed" for item in inspection.base_colour_maps)
            if real is not label["has_base_color_texture"]:
                wrong.append((uid, label["name"], inspection.base_colour_maps))
            # A flat or unreadable map may be labelled as a texture, but no texture is overlooked.
            assert inspection.base_colour_maps or not label["has_base_color_texture"], (uid, label)
    assert len(wrong) <= 0.05 * decided, wrong


def test_lowpoly_tags_equal_the_labels(mirror: Path, labels) -> None:
    for file in sorted(mirror.glob("metadata/*.json.gz")):
        for uid, metadata in json.loads(gzip.decompress(file.read_bytes())).items():
            if uid in labels:
                lowpoly = any(is_lowpoly_tag(tag["name"]) for tag in metadata["tags"])
                assert lowpoly is labels[uid]["lowpoly_tag"], (uid, metadata["tags"])


def test_captions_equal_the_labels(mirror: Path, labels) -> None:
    with (mirror / "Cap3D_automated_Objaverse_full.csv").open(newline="") as file:
        captioned = {row[0] for row in csv.reader(file) if row and row[1].strip()}
    for uid, label in labels.items():
        assert (uid in captioned) is label["caption"], (uid, label)
