"""The demo source: the same bytes in every run, and an object for every filter."""

import csv
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.errors import BadInput
from dataset.cameras import project
from filters.chain import FilterConfig
from filters.inspect_glb import GlbError, Inspection, inspect_glb
from filters.islands import measure_islands
from filters.thickness import thickness
from pipelines.demo.demo_mirror import CAPTIONS_FILE, main, write_demo_source
from pipelines.demo.demo_objects import OBJECTS, DemoObject
from pipelines.sources import SourceObject, open_source
from pipelines.sources.captions import read_captions
from render.rigs import get_rig
from tests.support.facts import Facts, evaluate_filters
from tests.support.surfaces import glb_surface


@pytest.fixture(scope="module")
def demo(demo_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the demo source; a test that damages it must repair it."""
    return Path(shutil.copytree(demo_source, tmp_path_factory.mktemp("demo") / "source"))


@pytest.fixture(scope="module")
def listed(demo: Path) -> list[SourceObject]:
    captions = read_captions(str(demo / CAPTIONS_FILE)).texts
    source = open_source(str(demo))
    objects = [item for part in sorted(source.parts()) for item in source.read_part(part)]
    return [
        replace(item, record=replace(item.record, caption=captions.get(item.record.asset_id[10:])))
        for item in objects
    ]


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def coverage(points: np.ndarray, asset_id: str) -> list[float]:
    """Return the share of the frame that the points cover in each view, at 48 x 48 pixels."""
    shares = []
    for camera in get_rig("lrm32").cameras(asset_id):
        image, _ = project(camera, points)
        cells = np.floor(image[((image >= 0) & (image < 1)).all(axis=1)] * 48).astype(int)
        shares.append(len(np.unique(cells @ [48, 1])) / 48**2)
    return shares


def test_another_process_writes_the_same_bytes(demo: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.demo_source", str(tmp_path / "again")]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert str(len(OBJECTS)) in result.stdout
    assert contents(tmp_path / "again") == contents(demo)


def test_a_second_run_changes_no_file(demo: Path) -> None:
    paths = [path for path in demo.rglob("*") if path.is_file()]
    before = [path.stat().st_mtime_ns for path in paths]
    damaged = paths[0].read_bytes()
    paths[0].write_bytes(b"")
    write_demo_source(demo)
    assert paths[0].read_bytes() == damaged
    assert [path.stat().st_mtime_ns for path in paths][1:] == before[1:]


def test_the_layout_is_that_of_objaverse(demo: Path) -> None:
    def read(name: str) -> dict:
        return json.loads(gzip.decompress((demo / name).read_bytes()))

    paths = read("object-paths.json.gz")
    assert len(paths) == len(OBJECTS)
    for uid, path in paths.items():
        folder = path.split("/")[1]
        assert path == f"glbs/{folder}/{uid}.glb"
        metadata = read(f"metadata/{folder}.json.gz")[uid]
        assert metadata["uid"] == uid
        assert metadata["license"] == "cc0"
        assert metadata["user"]["username"]
        assert all({"name", "slug"} <= set(tag) for tag in metadata["tags"])
        assert metadata["faceCount"] < 20_000
    assert {uid for uids in read("lvis-annotations.json.gz").values() for uid in uids} <= set(paths)
    with (demo / CAPTIONS_FILE).open(newline="") as file:
        rows = list(csv.reader(file))
    assert all(len(row) == 2 and row[0] in paths for row in rows)
    assert {path.name for path in demo.glob("glbs/*/*")} == {f"{uid}.glb" for uid in paths}


def test_every_filter_drops_one_and_most_are_kept(demo: Path, listed: list[SourceObject]) -> None:
    reasons: dict[str, list[str]] = {}
    failed = []
    for item in listed:
        path = demo / item.record.path
        try:
            inspected: Inspection = inspect_glb(path)
        except GlbError as error:
            failed.append((item.record.name, error.kind))
            continue
        points = glb_surface(path)
        assert points is not None
        shares = coverage(points[::5], item.record.asset_id)
        facts = Facts(
            record=item.record,
            inspect=inspected.to_dict(),
            measure={
                "coverage": shares,
                "islands": measure_islands(points),
                "thickness": thickness(points),
            },
        )
        verdicts = evaluate_filters(facts, FilterConfig())
        dropped = [verdict.filter for verdict in verdicts if not verdict.keep]
        reasons[item.record.name] = dropped
        if not dropped:
            assert min(shares) > 0.12, item.record.name
            assert all(verdict.reason == "passed" for verdict in verdicts), verdicts
    assert failed == [("torn atlas", "malformed")]
    paper_filters = ("caption", "lowpoly", "textured", "several", "occupancy")
    for name in paper_filters:
        assert [name] in reasons.values(), name
    kept = [name for name, dropped in reasons.items() if not dropped]
    assert len(kept) >= 6
    assert len(kept) + len(paper_filters) + len(failed) == len(OBJECTS)


def test_textures_are_detailed(demo: Path, listed: list[SourceObject]) -> None:
    for item in listed:
        if item.record.name in ("torn atlas", "clay bowl"):
            continue
        maps = inspect_glb(demo / item.record.path).base_colour_maps
        assert {texture.state for texture in maps} == {"detailed"}
        assert max(texture.width for texture in maps) >= 256


def test_the_command_line_rejects_a_file_as_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert main([str(file)]) == BadInput.exit_code
    assert str(file) in capsys.readouterr().err
    with pytest.raises(BadInput, match=str(file)):
        write_demo_source(file)


@pytest.mark.parametrize("item", OBJECTS, ids=lambda item: item.name)
def test_faces_point_outwards_and_textures_are_not_mirrored(item: DemoObject) -> None:
    for part in item.build():
        corners, uv = part.vertices[part.faces], part.uv[part.faces]
        facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals = part.normals[part.faces].mean(axis=1)
        assert ((facing * normals).sum(axis=1) > 0).all()
        assert np.allclose(np.linalg.norm(part.normals, axis=1), 1)
        # Seen from outside, no picture is mirrored.
        (ax, ay), (bx, by) = (uv[:, 1] - uv[:, 0]).T, (uv[:, 2] - uv[:, 0]).T
        assert (ax * by - ay * bx > 0).all()
        assert ((part.uv >= 0) & (part.uv <= 1)).all()
