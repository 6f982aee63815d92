"""Mirrors and folders of models: listed objects, their versions, and fetched files."""

import errno
import gzip
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import canonical_json
from core.errors import BadInput
from dataset.object_record import ObjectRecord, sample_key
from pipelines.sources import FetchFailed, Source, open_source
from pipelines.sources.annotation import read_annotation
from pipelines.sources.json_tables import MAX_BYTES
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


@pytest.mark.parametrize("is_mirror", [True, False])
def test_a_file_above_the_limit_is_not_copied(demo, models, tmp_path, is_mirror):
    source = open_source(str(demo if is_mirror else models))
    item = objects_of(source)[0]
    with pytest.raises(FetchFailed, match=r"the limit is 99 \(--inspect") as raised:
        source.fetch(item.record.path, item.version, tmp_path / "x.glb", 99)
    assert raised.value.kind == "too_large"
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
        ('path,caption\nchair.glb,"x\n', "line 2: a quote is not closed"),
        ("path\nno.glb\n", "no path in"),
        ("path\nch\xff.glb\n", "line 2: is not valid Unicode"),
    ],
)
def test_an_invalid_table_is_rejected(models, text, problem):
    (models / "objects.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match=problem):
        open_source(str(models))


def skipped_of(source: Source) -> list[str]:
    """Return the examples of all skipped rows of a source's tables."""
    return [text for table in source.skipped_rows() for text in table.examples]


def test_files_that_have_no_asset_id_of_their_own_are_skipped(models):
    before = open_source(str(models)).parts()
    (models / "chair.GLB").write_bytes(OTHER)
    (models / os.fsdecode(b"caf\xe9.glb")).write_bytes(GOOD)
    source = open_source(str(models))
    assert source.parts() == before
    assert [item.record.path for item in objects_of(source)][1] == "chair.glb"
    assert skipped_of(source) == [
        "'caf\\udce9.glb': the name is not valid UTF-8: rename the file",
        "'chair.GLB': has the same asset id as 'chair.glb': rename one of them",
    ]


def test_a_row_that_cannot_be_read_is_the_problem_of_its_model(models):
    good = "path,caption,,\n" + "".join(f"gone{n}.glb,x,,\n" for n in range(4))
    table = models / "objects.csv"
    table.write_text(good + "kitchen/ünï.v2.glb,a pot,,\n")
    before = open_source(str(models)).parts()
    table.write_bytes(good.encode() + 'chair.glb,"x\nkitchen/ünï.v2.glb,a pot,,\n'.encode())
    source = open_source(str(models))
    problems = {item.record.asset_id: item.problem for item in objects_of(source)}
    text = "line 6: a quote is not closed, or not doubled inside a quoted cell"
    assert problems.pop("folder:chair") == f"{table} {text}"
    assert set(problems.values()) == {""}
    assert skipped_of(source) == [text]
    assert len(changed_parts(before, source.parts())) == 1
    by_id = {item.record.asset_id: item.record for item in objects_of(source)}
    assert by_id["folder:kitchen/ünï.v2"].caption == "a pot"


def write_mirror(folder: Path, paths, metadata=None, lvis=None) -> Source:
    """Write the tables of a mirror whose objects are in one folder, and open it."""
    (folder / "metadata").mkdir(exist_ok=True)
    tables = {
        "object-paths": paths,
        "lvis-annotations": lvis or {},
        "metadata/000-000": metadata or {},
    }
    for name, table in tables.items():
        (folder / f"{name}.json.gz").write_bytes(gzip.compress(json.dumps(table).encode()))
    return open_source(str(folder))


UIDS = ["8476c4170df24cf5bbe6967222d1a42d", "ysqP6VH2x99bODrQRbcYdQjSLjV"]
PATHS = {uid: f"glbs/000-000/{uid}.glb" for uid in UIDS}


def test_a_mirror_with_odd_rows_lists_the_others(tmp_path):
    paths = {"a/b": PATHS[UIDS[0]], "c": None, **PATHS}
    lvis = {"chair": None, "mug": [UIDS[0], 5, UIDS[0]], "x\ud800": [UIDS[1]], "z": [UIDS[1]] * 3}
    source = write_mirror(tmp_path, paths, lvis=lvis)
    objects = objects_of(source)
    assert [item.record.asset_id for item in objects] == [f"objaverse:{uid}" for uid in UIDS]
    assert [item.record.categories for item in objects] == [("mug",), ("z",)]
    assert skipped_of(source) == [
        "'a/b': is not an id",
        "c: None is not of the form glbs/FOLDER/FILE.glb",
        "'chair': is not a list of ids",
        "'mug': 5 is not an id",
        "'x\\ud800': is not valid Unicode",
    ]
    with pytest.raises(BadInput, match=r"3 of 4 rows cannot be read.* '/': is not an id"):
        write_mirror(tmp_path, {"/": "", "a": 1, "b": [], UIDS[0]: PATHS[UIDS[0]]}).parts()


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        ({"tags": 5}, "tags is a number, not a list"),
        ({"tags": {"name": "a"}}, "tags is an object, not a list"),
        ({"tags": [None]}, "a tag is null, not text"),
        ({"tags": [{"slug": "a"}]}, "a tag is null, not text"),
        ({"tags": ["a", {"name": ["b"]}]}, "a tag is a list, not text"),
        ({"tags": [{"name": "\udc80"}]}, "a tag is not valid Unicode"),
        ({"license": 5}, "license is a number, not text"),
        ({"license": float("nan")}, "license is a number, not text"),
        ({"license": ["by"]}, "license is a list, not text"),
        ({"name": "\ud800"}, "name is not valid Unicode"),
        ({"name": "a\0b"}, "name contains a NUL character"),
        ({"user": []}, "user is a list, not text"),
        ({"user": {"username": 7}}, "user.username is a number, not text"),
        ({"isAgeRestricted": "no"}, "isAgeRestricted is text, not true or false"),
        ({"isAgeRestricted": 0}, "isAgeRestricted is a number, not true or false"),
        ("x", "the annotation is text, not an object"),
        ([], "the annotation is a list, not an object"),
        ({"tags": 5, "license": {}}, "license is an object, not text; tags is a number, not a"),
    ],
)
def test_an_annotation_of_the_wrong_type_is_the_problem_of_its_object(
    tmp_path, annotation, problem
):
    metadata = {UIDS[0]: {"name": "n", **GOOD_FIELDS}, UIDS[1]: annotation}
    first, second = objects_of(write_mirror(tmp_path, PATHS, metadata))
    assert first.problem == ""
    assert (first.record.name, first.record.tags, first.record.author) == ("n", ("a", "b"), "me")
    assert second.problem.startswith(problem)


FIELD_NAMES = st.sampled_from("name license user username tags isAgeRestricted".split())
GOOD_FIELDS = {
    "tags": [{"name": "a"}, "b", ""],
    "user": {"username": "me"},
    "license": None,
    "categories": 5,
    "isAgeRestricted": True,
}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(FIELD_NAMES, values, max_size=4),
)


@given(VALUES)
def test_any_annotation_gives_a_record_that_can_be_stored(annotation):
    record, _ = read_annotation(annotation, asset_id="objaverse:a", path="p", categories=())
    stored = canonical_json(record.to_dict()).encode()
    assert b"\0" not in stored
    assert ObjectRecord.from_dict(json.loads(stored)) == record


@pytest.mark.parametrize("annotation", [None, {}, {"name": None, "tags": None, "user": None}])
def test_an_annotation_without_values_is_unknown(tmp_path, annotation):
    item = objects_of(write_mirror(tmp_path, PATHS, {UIDS[0]: annotation}))[0]
    assert item.problem == ""
    assert (item.record.licence, item.record.tags) == (None, ())


def test_a_table_that_is_too_large_is_refused(tmp_path, monkeypatch):
    source = write_mirror(tmp_path, PATHS)
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.sources.mirror.MAX_BYTES", 50)
        with pytest.raises(BadInput, match="more than the 50 of a table"):
            source.parts()
    with gzip.open(tmp_path / "object-paths.json.gz", "wb", compresslevel=1) as file:
        for _ in range(MAX_BYTES >> 20):
            file.write(bytes(1 << 20))
        file.write(b"0")
    with pytest.raises(BadInput, match=r"object-paths.json.gz is damaged: .* 256 MiB"):
        source.parts()


@pytest.mark.parametrize("good", [1, 3])
def test_an_entry_that_cannot_be_read_costs_only_itself(tmp_path, good):
    odd = {
        "pipe.glb": os.mkfifo,
        "loop.glb": lambda path: path.symlink_to(path.name),
        "broken.glb": lambda path: path.symlink_to("nowhere"),
        "device.glb": lambda path: path.symlink_to("/dev/zero"),
        "folder.glb": lambda path: path.mkdir(),
        "linked.glb": lambda path: path.symlink_to("."),
        "round": lambda path: path.symlink_to("."),
    }
    for name, make in odd.items():
        make(tmp_path / name)
    for number in range(good):
        (tmp_path / f"{number}.glb").write_bytes(GOOD)
    source = open_source(str(tmp_path))
    assert [item.record.path for item in objects_of(source)] == [f"{n}.glb" for n in range(good)]
    (names,) = source.skipped_rows()
    assert (names.num_rows, names.num_skipped) == (good + 6, 6)
    assert names.examples[0].split(": ")[0].strip("'") in odd


def test_a_subfolder_that_cannot_be_listed_costs_only_itself(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.glb").write_bytes(GOOD)
    scan = os.scandir

    def refuse(folder):
        if str(folder).endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        return scan(folder)

    monkeypatch.setattr("os.scandir", refuse)
    source = open_source(str(tmp_path))
    assert [item.record.path for item in objects_of(source)] == ["a.glb"]
    (names,) = source.skipped_rows()
    assert names.examples == ["'closed/': Permission denied"]


@pytest.mark.parametrize("length", [131_071, 131_073, 2_000_000])
def test_long_captions_are_kept(tmp_path, length):
    (tmp_path / "a.glb").write_bytes(GOOD)
    (tmp_path / "objects.csv").write_text(f"path,caption\na.glb,{'w' * length}\n")
    (item,) = objects_of(open_source(str(tmp_path)))
    assert len(item.record.caption) == length
