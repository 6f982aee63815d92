"""Mirrors and folders of models: listed objects, their versions, and fetched files."""

import gzip
import json
import os
import shutil
from pathlib import Path

import pytest

from core.errors import BadInput
from dataset.object_record import sample_key
from pipelines.sources import FetchFailed, open_source
from tests.support.fake_glbs import GOOD, OTHER
from tests.support.listings import changed_parts, objects_of


@pytest.fixture
def demo(demo_source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_source, tmp_path / "mirror"))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return a folder of nested files with names as people write them."""
    root = tmp_path / "models"
    for path in ["chair.glb", "kitchen/Tea pot (1).GLB", "kitchen/ünï.v2.glb", "a,b/c:d%e.glb"]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(GOOD)
    (root / "kitchen" / "notes.txt").write_text("")
    (root / ".trash").mkdir()
    (root / ".trash" / "old.glb").write_bytes(GOOD)
    return root


def test_parts_make_up_the_listing(demo):
    source = open_source(str(demo))
    parts = source.parts()
    assert parts == open_source(str(demo)).parts()
    assert set(parts) == {path.name for path in demo.glob("glbs/*")}
    all_ids = []
    for part in parts:
        items = source.read_part(part)
        ids = [item.record.asset_id for item in items]
        assert ids == sorted(ids)
        assert source.files(part, False) == {i.record.asset_id: i.version for i in items}
        chosen = [item.record.asset_id for item in items if item.record.categories]
        assert list(source.files(part, True)) == chosen
        assert all(item.record.caption is None for item in items)
        assert all(item.record.path.startswith(f"glbs/{part}/") for item in items)
        all_ids += ids
    paths = json.loads(gzip.decompress((demo / "object-paths.json.gz").read_bytes()))
    assert sorted(all_ids) == sorted(f"objaverse:{uid}" for uid in paths)


def test_a_part_changes_with_its_annotations_and_not_with_its_files(demo):
    source = open_source(str(demo))
    before = source.parts()
    file = sorted(demo.glob("glbs/*/*.glb"))[0]
    part, asset_id = file.parent.name, f"objaverse:{file.stem}"
    files = source.files(part, False)

    def changed_since_the_last_call() -> set[str]:
        nonlocal before
        after = source.parts()
        changed, before = changed_parts(before, after), after
        return changed

    os.utime(file, ns=(1, 1))
    assert changed_since_the_last_call() == set()
    assert changed_parts(files, source.files(part, False)) == {asset_id}
    file.unlink()
    assert changed_since_the_last_call() == set()
    assert source.files(part, False)[asset_id] == "missing"
    os.utime(demo / f"metadata/{part}.json.gz", ns=(1, 1))
    assert changed_since_the_last_call() == {part}
    (demo / "lvis-annotations.json.gz").write_bytes(
        gzip.compress(json.dumps({"teapot": [file.stem]}).encode())
    )
    assert part in changed_since_the_last_call()
    paths = json.loads(gzip.decompress((demo / "object-paths.json.gz").read_bytes()))
    del paths[file.stem]
    (demo / "object-paths.json.gz").write_bytes(gzip.compress(json.dumps(paths).encode()))
    assert changed_since_the_last_call() == set()
    assert asset_id not in source.files(part, False)


def test_a_file_that_changed_since_it_was_listed_is_not_fetched(demo, tmp_path):
    source = open_source(str(demo))
    item = objects_of(source)[0]
    path, target = item.record.path, tmp_path / "x.glb"
    fetched = source.fetch(path, item.version, target)
    assert fetched.num_bytes == target.stat().st_size
    target.unlink()
    (demo / path).write_bytes(OTHER)
    with pytest.raises(FetchFailed) as raised:
        source.fetch(path, item.version, target)
    assert raised.value.kind == "changed"
    (demo / path).unlink()
    with pytest.raises(FetchFailed) as raised:
        source.fetch(path, "missing", target)
    assert raised.value.kind == "missing"
    assert [p.name for p in tmp_path.iterdir()] == ["mirror"]


def test_a_truncated_file_is_not_fetched(demo, tmp_path):
    source = open_source(str(demo))
    item = objects_of(source)[0]
    (demo / item.record.path).write_bytes(GOOD[:-100])
    item = objects_of(source)[0]
    with pytest.raises(FetchFailed) as raised:
        source.fetch(item.record.path, item.version, tmp_path / "x.glb")
    assert raised.value.kind == "malformed"
    assert not (tmp_path / "x.glb").exists()


def test_a_folder_of_models_is_listed_and_fetched(models, tmp_path):
    source = open_source(str(models))
    objects = objects_of(source)
    ids = [item.record.asset_id for item in objects]
    assert ids == [
        "folder:a,b/c:d%e",
        "folder:chair",
        "folder:kitchen/Tea pot (1)",
        "folder:kitchen/ünï.v2",
    ]
    keys = [sample_key(asset_id) for asset_id in ids]
    assert len(set(keys)) == 4
    assert all("." not in key and "/" not in key for key in keys)
    assert objects[2].record.name == "Tea pot (1)"
    assert objects[2].record.caption is None
    for item in objects:
        source.fetch(item.record.path, item.version, tmp_path / "x.glb")
        assert (tmp_path / "x.glb").read_bytes() == GOOD


CSV = '''\ufeffpath,caption,tags,licence,author,name
chair.glb,"a red chair, ""old""",wood; red ,cc0,me,Chair
kitchen/ünï.v2.glb,,,,,
gone.glb,no longer here,,,,
'''


@pytest.mark.parametrize("given", [True, False])
def test_a_table_that_describes_the_models(models, tmp_path, given):
    file = tmp_path / "mine.csv" if given else models / "objects.csv"
    file.write_text(CSV)
    source = open_source(str(models), captions=str(file) if given else None)
    objects = objects_of(source)
    by_id = {item.record.asset_id: item.record for item in objects}
    chair = by_id["folder:chair"]
    assert chair.caption == 'a red chair, "old"'
    assert chair.tags == ("wood", "red")
    assert (chair.licence, chair.author, chair.name) == ("cc0", "me", "Chair")
    assert by_id["folder:kitchen/ünï.v2"].caption is None
    assert by_id["folder:kitchen/ünï.v2"].name == "ünï.v2"
    assert len(source.revision) == 16
    before = source.parts()
    file.write_text(CSV.replace("red chair", "blue chair"))
    assert len(changed_parts(before, source.parts())) == 1


def test_a_table_may_spell_licence_as_license(models):
    table = models / "objects.csv"
    table.write_text("path,licence\nchair.glb,cc0\n")
    before = open_source(str(models)).parts()
    table.write_text("path,license\nchair.glb,cc0\n")
    source = open_source(str(models))
    by_id = {item.record.asset_id: item.record for item in objects_of(source)}
    assert by_id["folder:chair"].licence == "cc0"
    assert source.parts() == before
    table.write_text("path,licence,license\nchair.glb,cc0,cc0\n")
    with pytest.raises(BadInput, match="line 1 must name the columns"):
        open_source(str(models))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("caption\nx\n", "line 1 must name the columns: path"),
        ("path,captoin\nchair.glb,x\n", "line 1 must name the columns: path"),
        ("path,caption\nchair.glb,x,y\n", "line 2: expected 2 values"),
        ("path,caption\nchair.glb\n", "line 2: expected 2 values"),
        ('path,caption\nchair.glb,"x\n', "unexpected end of data"),
        ("path\nno.glb\n", "no path in"),
        ("path\nch\xff.glb\n", "cannot read the table"),
    ],
)
def test_an_invalid_table_is_rejected(models, text, problem):
    (models / "objects.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match=problem):
        open_source(str(models))


def test_files_with_the_same_asset_id_are_rejected(models):
    (models / "chair.GLB").write_bytes(GOOD)
    with pytest.raises(BadInput, match="have the same asset id"):
        open_source(str(models))


def test_file_names_that_are_not_utf_8_are_rejected(models):
    (models / os.fsdecode(b"caf\xe9.glb")).write_bytes(GOOD)
    with pytest.raises(BadInput, match="UTF-8"):
        open_source(str(models))
