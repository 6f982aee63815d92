"""What users write for a snapshot, names of snapshots, and deletion."""

import json
from dataclasses import replace

import pytest

from core.errors import BadInput
from core.storage import Storage
from dataset.snapshots.deletion import delete_snapshots
from dataset.snapshots.manifests import (
    UnreadableSnapshot,
    list_snapshots,
    manifests,
    write_manifest,
)
from dataset.snapshots.protection import files_of_snapshots
from dataset.snapshots.references import check_name, resolve
from dataset.snapshots.rows import read_rows, rig_of
from dataset.snapshots.snapshot import Sample, open_snapshot, write_snapshot
from tests.support.small_shards import small_sample


@pytest.fixture
def root(tmp_path) -> Storage:
    return Storage(str(tmp_path))


def create(root: Storage, samples: list[Sample], **options) -> str:
    return write_snapshot(root, samples, None, **options)["snapshot"]


def write_ids(root: Storage, *ids: str, **names: list[str]) -> None:
    """Write manifests with these ids, the first one created first; `names` by id."""
    for number, snapshot_id in enumerate(ids):
        created = f"2026-01-{number + 1:02}T00:00:00+00:00"
        extra = {"names": names[snapshot_id]} if snapshot_id in names else {}
        values = {"format": 1, "samples": 1, "bytes": 1, "where": None, "created": created}
        write_manifest(root, {"snapshot": snapshot_id, **values, **extra})


A, B, C = "a1b2c3d4e5f60718", "a1b2ffffffffffff", "0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (A, A),
        ("a1b2c", A),
        ("a1b2f", B),
        ("0123", C),
        ("latest", C),
        ("v1", A),
        ("best", A),
        # A name counts before the start of an id.
        ("a1b2ff", A),
    ],
)
def test_a_text_refers_to_a_snapshot(root: Storage, text: str, expected: str):
    write_ids(root, A, B, C, **{A: ["best", "v1", "a1b2ff"]})
    assert resolve(root, text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a1b2", f"the start of several snapshots: {A} \\(v1\\), {B}; give more characters"),
        ("012", "no snapshot '012'; there are"),
        ("", "no snapshot ''; there are"),
        ("v2", r"no snapshot 'v2'; there are: .* \(v1\)"),
        ("a1b2c3d4e5f60719", f"did you mean '{A}'"),
        ("V1", "no snapshot 'V1'"),
        ("now", "no snapshot 'now'"),
        ("../dataset", "no snapshot"),
    ],
)
def test_other_texts_name_what_there_is(root: Storage, text: str, message: str):
    write_ids(root, A, B, C, **{A: ["v1"]})
    with pytest.raises(BadInput, match=message):
        resolve(root, text)


def test_without_snapshots_the_command_that_creates_one_is_named(root: Storage):
    for text in ("latest", "v1", A):
        with pytest.raises(BadInput, match="create one: lrm snapshot --root"):
            resolve(root, text)


def test_latest_is_the_snapshot_that_was_returned_last(root: Storage):
    first, second = [small_sample(1)], [small_sample(1), small_sample(2)]
    ids = [create(root, samples) for samples in (first, second)]
    assert resolve(root, "latest") == ids[1]
    assert create(root, first) == ids[0]
    assert open_snapshot(root, "latest").snapshot_id == ids[0]


def test_a_snapshot_can_be_opened_by_its_names(root: Storage):
    samples = [small_sample(1)]
    ids = {create(root, samples, name=name) for name in ("v1", "v1", "best")} | {
        create(root, samples)
    }
    assert [open_snapshot(root, name).snapshot_id for name in ("v1", "best")] == [*ids, *ids]
    (manifest,) = manifests(root)
    assert (manifest["names"], manifest["rig"]) == (["best", "v1"], "test")


def test_a_name_never_moves_to_other_samples(root: Storage):
    first = create(root, [small_sample(1)], name="v1")
    before = root.find_files("")
    with pytest.raises(BadInput, match=f"is the name of snapshot {first}.* --delete v1"):
        create(root, [small_sample(2)], name="v1")
    with pytest.raises(BadInput, match=f"start of the id of snapshot {first}"):
        create(root, [small_sample(2)], name=first[:6])
    assert root.find_files("") == before
    delete_snapshots(root, ["v1"], force=True)
    second = create(root, [small_sample(2)], name="v1")
    assert resolve(root, "v1") == second


@pytest.mark.parametrize("name", ["v1", "20261130", "2026-11-30", "a.b_c-D", "x" * 64, "cafe"])
def test_good_names(name: str):
    check_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "latest", "Latest", "now", "NOW", A, "x" * 65, "-a", ".a", "a b", "a/b", "ä", "a\n"],
)
def test_names_that_mean_something_else_are_refused(name: str):
    with pytest.raises(BadInput, match="--name"):
        check_name(name)


def test_a_deleted_snapshot_leaves_no_file(root: Storage):
    kept = create(root, [small_sample(1)])
    others = [create(root, [replace(small_sample(2), caption=text)]) for text in "ab"]
    with pytest.raises(BadInput, match=f"{others[0]} is protected until .* add --force"):
        delete_snapshots(root, others, force=False)
    with pytest.raises(BadInput, match="no snapshot 'v9'"):
        delete_snapshots(root, [others[0], "v9"], force=True)
    assert set(list_snapshots(root)) == {kept, *others}
    root.write("snapshots/notes.txt", b"of a user")
    deleted = delete_snapshots(root, [*others, others[0][:8]], force=True)
    assert deleted == {snapshot_id: [] for snapshot_id in others}
    assert list_snapshots(root) == [kept]
    names = {f"{kept}.json", f"{kept}.parquet", f"{kept}.credits.md", "notes.txt"}
    assert set(root.list_files("snapshots")) == names
    assert len(open_snapshot(root, kept).samples) == 1


def test_a_snapshot_without_protection_is_deleted_at_once(root: Storage):
    expired = create(root, [small_sample(1)], protect_days=0)
    compacted = create(root, [small_sample(2)])
    manifest = json.loads(root.read(f"snapshots/{compacted}.json"))
    write_manifest(root, manifest | {"compacted": manifest["created"]})
    assert read_rows(root, manifest, ["asset_id", "geometry"]).num_rows == 1
    assert list(delete_snapshots(root, [expired, compacted], force=False)) == [expired, compacted]
    assert root.list_files("snapshots") == []


def test_a_snapshot_with_other_names_is_not_deleted_by_one_of_them(root: Storage):
    samples = [small_sample(1)]
    for name in ("v1", "best"):
        snapshot_id = create(root, samples, name=name, protect_days=0)
    with pytest.raises(BadInput, match=f"{snapshot_id} is also called best: add --force"):
        delete_snapshots(root, ["v1"], force=False)
    for given in (["v1", "best"], [snapshot_id]):
        assert delete_snapshots(root, given, force=False) == {snapshot_id: ["best", "v1"]}
        for name in ("v1", "best"):
            create(root, samples, name=name, protect_days=0)
    with pytest.raises(BadInput, match=r"\(best, v1\) is protected until"):
        create(root, samples)
        delete_snapshots(root, ["v1"], force=False)


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"",
        b"[]",
        b"null",
        b"{}",
        b"\xff",
        b'{"snapshot": "other"}',
        b'{"snapshot": "%(id)s", "format": 2, "created": "2026-01-01T00:00:00+00:00"}',
        b'{"snapshot": "%(id)s", "format": 2, "samples": 1, "bytes": 1, "where": null, '
        b'"created": "2026-01-01T00:00:00"}',
        b'{"snapshot": "%(id)s", "format": 2, "samples": 1, "bytes": 1, "where": null, '
        b'"created": 7}',
    ],
)
def test_a_damaged_manifest_is_an_error_of_its_own_snapshot_only(root: Storage, content: bytes):
    good = create(root, [small_sample(1)], name="good")
    bad = create(root, [small_sample(2)], name="bad")
    root.write(f"snapshots/{bad}.json", content.replace(b"%(id)s", bad.encode()))
    assert [manifest["snapshot"] for manifest in manifests(root)] == [good]
    assert (
        len(open_snapshot(root, "good").samples) == len(open_snapshot(root, good[:6]).samples) == 1
    )
    # Whether the damaged one is the latest, or has the name, is unknown.
    for text in (bad, bad[:6], "latest", "bad"):
        with pytest.raises(UnreadableSnapshot, match=f"--delete {bad} --force"):
            open_snapshot(root, text)
    with pytest.raises(UnreadableSnapshot):
        list(files_of_snapshots(root))
    with pytest.raises(UnreadableSnapshot):
        delete_snapshots(root, [bad], force=False)
    assert delete_snapshots(root, [bad], force=True) == {bad: []}
    assert resolve(root, "latest") == good


@pytest.mark.parametrize("rows", [None, b"", b"PAR1 no parquet PAR1"])
def test_missing_or_damaged_rows_are_an_error_with_a_remedy(root: Storage, rows: bytes | None):
    bad = create(root, [small_sample(1)])
    if rows is None:
        root.delete(f"snapshots/{bad}.parquet")
    else:
        root.write(f"snapshots/{bad}.parquet", rows)
    (manifest,) = manifests(root)
    for read in (
        lambda: open_snapshot(root, bad),
        lambda: read_rows(root, manifest, ["rig"]),
        lambda: list(files_of_snapshots(root)),
    ):
        with pytest.raises(UnreadableSnapshot, match=f"{bad}.parquet .* --delete {bad} --force"):
            read()


def test_the_rig_of_an_older_snapshot_is_that_of_its_rows(root: Storage):
    create(root, [small_sample(1)])
    (manifest,) = manifests(root)
    assert rig_of(root, manifest) == "test"
    del manifest["rig"]
    assert rig_of(root, manifest) == "test"


def test_a_killed_deletion_is_continued_by_the_same_words(root: Storage):
    snapshot_id = create(root, [small_sample(1)], protect_days=0, name="v1")
    root.delete(f"snapshots/{snapshot_id}.credits.md", f"snapshots/{snapshot_id}.parquet")
    delete_snapshots(root, ["v1"], force=False)
    assert root.list_files("snapshots") == []
