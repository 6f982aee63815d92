"""Snapshots by name, of another rig, deleted, compared, and released by a compaction."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dataset.catalog.event_log import Catalog, Event
from dataset.root import open_root
from dataset.snapshots.rows import encode_rows, rows_path
from dataset.snapshots.snapshot import open_snapshot, write_snapshot
from pipelines.building.build_config import BuildConfig
from pipelines.building.dataset_status import load_dataset_state, stored_config
from pipelines.building.stages.identities import Identities
from pipelines.building.stages.registry import STAGES
from tests.support.datasets import BuiltDataset
from tests.support.lrm import Answer, run_lrm

OTHER_RIG = "orbit21"


@pytest.fixture
def copied(built_dataset: BuiltDataset, tmp_path: Path) -> BuiltDataset:
    """Return a copy of the dataset without snapshots, which a test may change."""
    copy = BuiltDataset(tmp_path / "root", built_dataset.source)
    shutil.copytree(built_dataset.root, copy.root)
    shutil.rmtree(copy.root / "snapshots", ignore_errors=True)
    return copy


def lrm(dataset: BuiltDataset, command: str, *words: Any) -> Answer:
    return run_lrm(command, *words, "--root", dataset.root)


def create(dataset: BuiltDataset, *words: Any) -> dict[str, Any]:
    return lrm(dataset, "snapshot", *words, "--json").json()


def kept(dataset: BuiltDataset) -> list[str]:
    return [state.asset_id for state in load_dataset_state(open_root(str(dataset.root))).kept]


def test_commands_take_names_latest_and_the_start_of_an_id(copied: BuiltDataset, tmp_path: Path):
    first, *_ = kept(copied)
    small = create(copied, "--name", "small", "--where", f"asset_id = '{first}'")["snapshot"]
    full = create(copied)["snapshot"]
    for text, expected in {"small": small, small[:5]: small, "latest": full, full: full}.items():
        assert lrm(copied, "diff", text, "--json").json()["before"]["snapshot"] == expected
    words = ["--layout", "trellis", "--out", tmp_path / "out", "--workers", "1", "--json"]
    assert lrm(copied, "export", "--snapshot", "small", *words).json()["snapshot"] == small
    rows = lrm(copied, "snapshot", "--list", "--json").json()["snapshots"]
    assert {row["snapshot"]: (row["names"], row["rig"]) for row in rows} == {
        small: (["small"], "lrm32"),
        full: ([], "lrm32"),
    }
    assert "small" in lrm(copied, "snapshot", "--list").out
    taken = lrm(copied, "snapshot", "--name", "small")
    assert (taken.code, taken.err.count("\n")) == (2, 1)
    assert f"is the name of snapshot {small}" in taken.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--name", "latest"], "--name latest: this word has a meaning of its own"),
        (["--rig", OTHER_RIG], f"--rig {OTHER_RIG}: "),
        (["--rig", "lrm31"], "has no sample of this rig; there are samples of: lrm32"),
        (["--delete", "v9"], "no snapshot 'v9'"),
        (["--delete", "v9", "--list"], "--list and --delete exclude each other"),
        (["--delete", "v9", "--name", "v8"], "--delete and --name exclude each other"),
        (["--delete", "v9", "--validation-share", "0"], "--delete and --validation-share exclude"),
        (["--list", "--protect-days", "90"], "--list and --protect-days exclude each other"),
        (["--force"], "--force needs --delete"),
    ],
)
def test_wrong_options_write_nothing(built_dataset: BuiltDataset, words, message):
    before = open_root(str(built_dataset.root)).find_files("snapshots")
    answer = lrm(built_dataset, "snapshot", *words)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert message in answer.err
    assert open_root(str(built_dataset.root)).find_files("snapshots") == before


def add_samples_of_another_rig(dataset: BuiltDataset, ids: list[str]) -> None:
    """Record samples of another rig in the catalog; they are the bytes of the first rig."""
    root = open_root(str(dataset.root))
    dataset_state = load_dataset_state(root)
    config = BuildConfig.load(stored_config(root).dump() | {"rig": OTHER_RIG})
    identities = Identities(config)
    names = dict.fromkeys(stage.name for stage in dataset_state.decider.stages)
    events = []
    for state in dataset_state.kept:
        if state.asset_id not in ids:
            continue
        for record in Catalog(root).history(state.asset_id):
            if record.event.stage in names and record.event.rig == "lrm32":
                event = identities.event(STAGES[record.event.stage], state, data=record.event.data)
                events.append(event)
    assert {event.rig for event in events} == {OTHER_RIG}
    Catalog(root).commit(events, "test", 1)


def test_a_snapshot_of_another_rig(copied: BuiltDataset):
    ids = kept(copied)[:2]
    add_samples_of_another_rig(copied, ids)
    manifest = create(copied, "--rig", OTHER_RIG)
    assert (manifest["rig"], manifest["samples"]) == (OTHER_RIG, 2)
    samples = open_snapshot(open_root(str(copied.root)), manifest["snapshot"]).samples
    assert {(sample.asset_id, sample.rig) for sample in samples} == {(i, OTHER_RIG) for i in ids}
    default = create(copied)
    assert (default["rig"], default["samples"]) == ("lrm32", len(kept(copied)))
    # `now` are the kept samples of the snapshot's rig.
    assert "no difference" in lrm(copied, "diff", manifest["snapshot"]).out
    compared = lrm(copied, "diff", manifest["snapshot"], "latest", "--json").json()
    assert (compared["rendered"], compared["moved"]) == ({"rig": ids}, [])
    assert compared["added"] == kept(copied)[2:]


def test_no_id_is_cut_in_a_list_of_snapshots(copied: BuiltDataset):
    ids = [
        create(copied, "--where", f"asset_id = '{one}'", "--name", f"a-long-name-{number}")
        for number, one in enumerate(kept(copied)[:2])
    ]
    listed = run_lrm("snapshot", "--list", "--root", copied.root, COLUMNS="60").out
    for manifest in ids:
        (line,) = (line for line in listed.splitlines() if manifest["snapshot"] in line)
        assert manifest["names"][0] in line
        assert line.split()[-1] == manifest["protected_until"][:10]


def test_the_ids_of_a_difference_are_lines_that_remove_reads(copied: BuiltDataset, tmp_path: Path):
    root = open_root(str(copied.root))
    odd = ["folder:two\nlines.glb", "folder:end ", "folder:ok.glb", 'folder:"a"']
    first, *_ = open_snapshot(root, create(copied)["snapshot"]).samples
    samples = [replace(first, asset_id=one) for one in odd]
    write_snapshot(root, [first, *samples], None, name="odd")
    data = {"tags": [], "caption": None, "licence": None, "age_restricted": False}
    gone = [Event(asset_id=one, stage="list", status="gone", data=data) for one in odd]
    Catalog(root).commit(gone, "test", 1)
    lines = lrm(copied, "diff", "odd", "--ids", "removed").out
    (tmp_path / "ids").write_text(lines)
    removed = lrm(copied, "remove", "--from", tmp_path / "ids", "--json").json()["removed"]
    assert sorted(removed) == sorted(odd)


def test_samples_that_wait_for_a_stage_are_not_called_removed(copied: BuiltDataset):
    create(copied, "--name", "before")
    removed, waiting, *_ = kept(copied)
    run_lrm("remove", removed, "--root", copied.root)
    root = open_root(str(copied.root))
    dataset_state = load_dataset_state(root)
    (state,) = (one for one in dataset_state.kept if one.asset_id == waiting)
    event = dataset_state.decider.identities.event(STAGES["render"], state, status="cleared")
    Catalog(root).commit([event], "test", 1)
    compared = lrm(copied, "diff", "before", "--json").json()
    assert (compared["removed"], compared["pending"]) == ([removed], [waiting])
    reverse = lrm(copied, "diff", "now", "before", "--json").json()
    assert (reverse["added"], reverse["pending"]) == ([removed], [waiting])
    assert f"a stage is to be done: 1: {waiting}\n" in lrm(copied, "diff", "before").out
    assert lrm(copied, "diff", "before", "--ids", "pending").out == f"{waiting}\n"
    assert "did you mean 'pending'?" in lrm(copied, "diff", "before", "--ids", "pendin").err


def test_one_damaged_manifest_leaves_the_other_snapshots_usable(copied: BuiltDataset):
    good = create(copied, "--name", "good", "--where", f"asset_id = '{kept(copied)[0]}'")
    bad = create(copied, "--name", "bad")["snapshot"]
    run_lrm("remove", kept(copied)[0], "--root", copied.root)
    (copied.root / "snapshots" / f"{bad}.json").write_text("{")
    assert lrm(copied, "diff", "good", "--json").code == 0
    listed = lrm(copied, "snapshot", "--list", "--json").json()
    assert [row["snapshot"] for row in listed["snapshots"]] == [good["snapshot"]]
    assert [row["snapshot"] for row in listed["unreadable"]] == [bad]
    text = lrm(copied, "snapshot", "--list")
    assert f"{bad}   unreadable" in text.out
    assert f"warning: {copied.root}: snapshot {bad} cannot be read" in text.err
    before = open_root(str(copied.root)).find_files("")
    for words in (
        ["compact", "--release", "good"],
        ["diff", bad],
        ["diff", "latest"],
        ["snapshot", "--delete", bad[:8]],
    ):
        answer = lrm(copied, *words)
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
        assert f"--delete {bad} --force" in answer.err
    assert open_root(str(copied.root)).find_files("") == before
    assert lrm(copied, "snapshot", "--delete", bad, "--force").code == 0
    assert lrm(copied, "compact", "--dry-run").code == 0


def test_a_deleted_snapshot_is_gone(copied: BuiltDataset):
    first, second = create(copied, "--name", "v1"), create(copied, "--where", "licence IS NOT NULL")
    assert first["snapshot"] == second["snapshot"]
    protected = lrm(copied, "snapshot", "--delete", "v1")
    assert (protected.code, protected.out) == (2, "")
    assert "is protected until" in protected.err
    words = ["--delete", "v1", first["snapshot"][:6], "--force", "--json"]
    assert create(copied, *words) == {
        "deleted": [first["snapshot"]],
        "names": {first["snapshot"]: ["v1"]},
    }
    assert list((copied.root / "snapshots").iterdir()) == []
    assert "no snapshot" in lrm(copied, "snapshot", "--list").out
    assert lrm(copied, "diff", "v1").code == 2


def test_diff_names_what_changed(copied: BuiltDataset, tmp_path: Path):
    before = create(copied, "--name", "before")["snapshot"]
    removed, dropped, changed, *_ = kept(copied)
    lines = lrm(copied, "diff", "before").out.splitlines()
    count = len(kept(copied))
    assert lines == [
        f"before {before} before: {count} samples, rig lrm32",
        f"after now: {count} samples, rig lrm32",
        "no difference",
    ]
    run_lrm("remove", removed, "--root", copied.root)
    captions = tmp_path / "captions.csv"
    with open(next(iter(copied.source.glob("*.csv"))), newline="") as file:
        rows = dict(csv.reader(file))
    uids = [asset_id.partition(":")[2] for asset_id in (dropped, changed)]
    del rows[uids[0]]
    rows[uids[1]] = "something else"
    with open(captions, "w", newline="") as file:
        csv.writer(file).writerows(rows.items())
    words = ["--captions", captions, "--address", "none", "--root", copied.root]
    assert run_lrm("build", *words).code == 0
    expected = {
        "before": {"snapshot": before, "names": ["before"], "rig": "lrm32", "samples": count},
        "after": {"snapshot": "now", "names": [], "rig": "lrm32", "samples": count - 2},
        "added": [],
        "removed": sorted([removed, dropped]),
        "pending": [],
        "rendered": {},
        "changed": {"caption": [changed]},
        "moved": [],
    }
    assert lrm(copied, "diff", "before", "now", "--json").json() == expected
    after = create(copied)["snapshot"]
    sides = {"after": {"snapshot": after, "names": [], "rig": "lrm32", "samples": count - 2}}
    assert lrm(copied, "diff", before, "latest", "--json").json() == expected | sides
    text = lrm(copied, "diff", before, after).out
    assert f"removed: 2: {', '.join(sorted([removed, dropped]))}\n" in text
    assert f"caption changed: 1: {changed}\n" in text
    ids = lrm(copied, "diff", after, before, "--ids", "added").out.splitlines()
    assert ids == sorted([removed, dropped])
    assert lrm(copied, "diff", before, after, "--ids", "changed").out == f"{changed}\n"
    assert lrm(copied, "diff", "now", "now").code == 2
    # A compaction moves samples, which is no difference.
    words = ["--release", "before", "--release", after[:4], "--garbage-ratio", "0", "--json"]
    compacted = lrm(copied, "compact", *words).json()
    assert (compacted["held"], set(compacted["outlived"])) == ({}, {before, after})
    compared = lrm(copied, "diff", after, "--json").json()
    assert len(compared["moved"]) > 0
    assert [compared[name] for name in ("added", "removed", "rendered", "changed")] == [
        [],
        [],
        {},
        {},
    ]


def test_compact_names_all_snapshots_that_keep_a_file_together(copied: BuiltDataset):
    """To release one of them frees nothing."""
    first = kept(copied)[0]
    ids = [
        create(copied, *words)["snapshot"] for words in ([], ["--where", f"asset_id = '{first}'"])
    ]
    run_lrm("remove", first, "--root", copied.root)
    report = lrm(copied, "compact", "--dry-run", "--json").json()
    assert report["freed_bytes"] == 0
    (held,) = report["held_together"]
    assert sorted(held["snapshots"]) == sorted(ids)
    assert (held["shards"]["files"], held["companions"]) == (1, {"files": 0, "bytes": 0})
    (line,) = [
        one for one in lrm(copied, "compact", "--dry-run").out.splitlines() if "keep " in one
    ]
    options = [word for name in held["snapshots"] for word in ("--release", name)]
    assert " ".join(options) in line
    freed = lrm(copied, "compact", *options, "--json").json()
    assert freed["held_together"] == []
    assert freed["freed_bytes"] > 0
    assert freed["deleted"]["bytes"] - freed["rewritten"]["bytes"] == freed["freed_bytes"]


def test_compact_releases_every_snapshot_that_is_named(copied: BuiltDataset):
    first, second, *_ = kept(copied)
    ids = [
        create(copied, "--where", f"asset_id = '{asset_id}'")["snapshot"]
        for asset_id in (first, second)
    ]
    run_lrm("remove", first, second, "--root", copied.root)
    words = ["--release", ids[0], "--release", ids[1], "--dry-run", "--json"]
    released = lrm(copied, "compact", *words).json()
    assert (released["held"], set(released["outlived"])) == ({}, set(ids))
    wrong = lrm(copied, "compact", "--release", ids[0], "--release", "v9")
    assert (wrong.code, wrong.out) == (2, "")
    held = json.loads(lrm(copied, "compact", "--dry-run", "--json").out)["held"]
    assert set(held) == set(ids)


def test_every_command_refuses_other_rows_until_the_snapshot_is_created_again(
    copied: BuiltDataset, tmp_path: Path
):
    """A Parquet file that is valid, but not the one that was written."""
    root = open_root(str(copied.root))
    snapshot_id = create(copied, "--name", "v1")["snapshot"]
    path = rows_path(snapshot_id)
    root.write(path, encode_rows(pq.read_table(root.resolve(path)).slice(0, 1)))
    train = ["train", "mesh", "--out", tmp_path / "run", "--loss.lpips", "0"]
    export = ["export", "--layout", "trellis", "--out", tmp_path / "out", "--workers", "1"]
    for words in (
        ["diff", "v1"],
        ["compact"],
        [*export, "--snapshot", "v1"],
        [*train, "--snapshot", "v1"],
    ):
        answer = lrm(copied, *words)
        assert (answer.code, answer.out) == (2, ""), words
        (line,) = answer.err.splitlines()
        assert f"{path} was changed after it was written" in line
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "out").exists()
    answer = lrm(copied, "snapshot")
    assert answer.code == 0
    assert (
        answer.err
        == f"lrm snapshot: warning: written again: {path} was changed after it was written\n"
    )
    assert lrm(copied, "diff", "v1").code == 0
