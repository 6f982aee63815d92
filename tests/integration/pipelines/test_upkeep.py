"""Maintenance of written shards: damage, takedowns, compaction, locks."""

import hashlib
import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from core.lock import exclusive_lock
from core.storage import Storage
from dataset.catalog.event_log import Catalog
from dataset.format.shards import index_path, read_index, read_members
from dataset.root import open_root
from dataset.snapshots.snapshot import open_snapshot
from pipelines.building.dataset_status import load_dataset_state
from pipelines.building.stages.pack import SAMPLE_LOCATION
from tests.support.datasets import BuiltDataset
from tests.support.lrm import Answer, run_lrm
from tests.support.processes import start_lrm


@pytest.fixture
def copied(built_dataset: BuiltDataset, tmp_path: Path) -> BuiltDataset:
    """Return a copy of the dataset without snapshots, which a test may change."""
    copy = BuiltDataset(tmp_path / "root", built_dataset.source)
    shutil.copytree(built_dataset.root, copy.root)
    shutil.rmtree(copy.root / "snapshots", ignore_errors=True)
    return copy


def build(dataset: BuiltDataset, *words: str) -> dict:
    return run_lrm("build", *dataset.words, *words, "--root", dataset.root, "--json").json()


def plan(dataset: BuiltDataset, *words: str) -> dict:
    return run_lrm("plan", *dataset.words, *words, "--root", dataset.root, "--json").json()["work"]


def kept_locations(dataset: BuiltDataset) -> dict[str, Any]:
    """Return the location of each kept sample, from the catalog."""
    dataset_state = load_dataset_state(open_root(str(dataset.root)))
    return {
        state.asset_id: {column.name: state.get(column) for column in SAMPLE_LOCATION}
        for state in dataset_state.kept
    }


def render_counts(dataset: BuiltDataset) -> Counter[str]:
    """Return how often each object was rendered."""
    catalog = Catalog(Storage(str(dataset.root)))
    events = [
        record.event
        for asset_id in kept_locations(dataset)
        for record in catalog.history(asset_id)
        if record.event.stage == "render" and record.event.data.get("staging")
    ]
    return Counter(event.asset_id for event in events)


def shard_bytes(dataset: BuiltDataset) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in dataset.root.glob("shards/*/*")}


def create_snapshot(dataset: BuiltDataset, *words: str) -> dict:
    return run_lrm("snapshot", "--root", dataset.root, "--json", *words).json()


def digest(dataset: BuiltDataset, snapshot: str) -> str:
    """Return a digest of all members that a training run can read."""
    root, hasher = open_root(str(dataset.root)), hashlib.sha256()
    for sample in open_snapshot(root, snapshot).samples:
        members = read_members(root, sample.shard, sample.entry, sample.entry.members)
        hasher.update(b"".join(members[name] for name in sorted(members)))
    return hasher.hexdigest()


def assert_counts_add_up(status: dict) -> None:
    parts = (status["kept"], *status["dropped"].values(), *status["failed"].values())
    assert sum(parts) + status["pending"] == status["listed"]


def test_verify_finds_no_problem_in_an_intact_dataset(built_dataset: BuiltDataset):
    answer = run_lrm("verify", "--root", built_dataset.root)
    assert (answer.code, "no problems" in answer.out) == (0, True)


def test_verify_names_damage_and_a_build_repairs_only_that(copied: BuiltDataset):
    before, locations = shard_bytes(copied), kept_locations(copied)
    snapshot = create_snapshot(copied)["snapshot"]
    digest_before = digest(copied, snapshot)
    by_shard: dict[str, list[str]] = {}
    for asset_id, location in locations.items():
        by_shard.setdefault(location["shard"], []).append(asset_id)
    flipped, without_index, missing = sorted(by_shard, key=lambda s: (-len(by_shard[s]), s))
    assert len(by_shard[missing]) == 1
    victim = by_shard[flipped][1]
    entries, _ = read_index(open_root(str(copied.root)), flipped)
    entry = next(entry for entry in entries if entry.key == locations[victim]["sample"])
    data = bytearray((copied.root / flipped).read_bytes())
    data[entry.offsets[4] + 7] ^= 1
    (copied.root / flipped).write_bytes(data)
    (copied.root / index_path(without_index)).unlink()
    (copied.root / missing).unlink()
    for _ in range(2):  # a second run reports the same
        answer = run_lrm("verify", "--root", copied.root, "--json")
        assert answer.code == 1
        report = json.loads(answer.out)
        problems = {(item["file"], item["asset_id"], item["member"]) for item in report["findings"]}
        assert problems == {
            (flipped, victim, entry.members[4]),
            (index_path(without_index), None, None),
            (missing, None, None),
            (missing, by_shard[missing][0], None),
        }
        rerendered = {victim, by_shard[missing][0]}
        assert set(report["damaged"]) == rerendered | set(by_shard[without_index])
    assert plan(copied) == {"render": {"retry": 2}, "pack": {"damaged": 4}}
    status = run_lrm("status", "--root", copied.root, "--json").json()
    assert status["failed"]["sample_damaged"] == 2
    assert_counts_add_up(status)
    assert create_snapshot(copied)["samples"] == len(locations) - 6
    build(copied)
    assert run_lrm("verify", "--root", copied.root).code == 0
    assert {
        asset_id for asset_id, count in render_counts(copied).items() if count == 2
    } == rerendered
    # The same bytes are written again, so the old snapshot is readable.
    assert shard_bytes(copied) == before
    assert digest(copied, snapshot) == digest_before
    assert plan(copied) == {}


def test_removed_objects_are_dropped_until_restored(copied: BuiltDataset, tmp_path: Path):
    ids = list(kept_locations(copied))
    assert run_lrm("remove", "--root", copied.root, "objaverse:nope", ids[0]).code == 2
    assert run_lrm("remove", "--root", copied.root).code == 2
    assert list(kept_locations(copied)) == ids
    names = tmp_path / "names.txt"
    names.write_text(f"# requested by the author\n{ids[1]}\n\n{ids[0]}  # twice\n")
    words = [
        *("remove", "--root", copied.root, ids[0], "--from", names),
        *("--reason", "requested", "--json"),
    ]
    assert run_lrm(*words).json() == {"removed": ids[:2], "unchanged": []}
    assert run_lrm(*words).json() == {"removed": [], "unchanged": ids[:2]}
    status = run_lrm("status", "--root", copied.root, "--json").json()
    assert status["dropped"]["removed"] == 2
    assert_counts_add_up(status)
    assert plan(copied) == {}
    assert build(copied) == status
    assert create_snapshot(copied)["samples"] == len(ids) - 2
    report = run_lrm("inspect", "--root", copied.root, ids[0], "--json").json()
    assert (report["state"], report["dropped"][0]["reason"]) == ("dropped", "removed")
    assert (report["dropped"][0]["measured"], report["samples"]) == ("requested", [])
    restored = run_lrm("remove", "--undo", "--root", copied.root, *ids[:2], "--json").json()
    assert restored == {"restored": ids[:2], "unchanged": []}
    assert list(kept_locations(copied)) == ids


def test_compaction_deletes_shards_that_no_protected_snapshot_uses(copied: BuiltDataset):
    before = kept_locations(copied)
    old = create_snapshot(copied)["snapshot"]
    digest_before = digest(copied, old)
    removed, dropped = list(before)[:2]
    run_lrm("remove", "--root", copied.root, removed)
    captions = copied.root / "captions.csv"
    _without_caption(copied, captions, dropped)
    # The dataset remembers its other settings.
    words = ["--captions", captions, "--address", "none", "--root", copied.root]
    assert run_lrm("build", *words).code == 0
    shard = before[removed]["shard"]
    files_before = open_root(str(copied.root)).find_files("shards")
    printed = run_lrm("compact", "--root", copied.root).out
    assert f"snapshot {old} keeps garbage until" in printed
    assert f"--release {old} frees it now" in printed
    assert open_root(str(copied.root)).find_files("shards") == files_before
    assert digest(copied, old) == digest_before
    assert kept_locations(copied).keys() == before.keys() - {removed, dropped}
    assert run_lrm("verify", "--root", copied.root).code == 0
    dry_report = run_lrm(
        "compact", "--root", copied.root, "--release", old, "--dry-run", "--json"
    ).json()
    assert (copied.root / shard).exists()
    report = run_lrm("compact", "--root", copied.root, "--release", old, "--json").json()
    # The tar's headers are in the estimate of a dry run only.
    for numbers in (dry_report, report):
        copied_bytes = numbers["rewritten"].pop("bytes")
        assert numbers.pop("freed_bytes") == numbers["deleted"]["bytes"] - copied_bytes > 0
    assert dry_report == report | {"dry_run": True}
    assert (report["held"], report["outlived"]) == ({}, [old])
    assert not (copied.root / shard).exists()
    new = create_snapshot(copied)
    assert new["licences"] == {"cc0": len(before) - 2}
    digest(copied, new["snapshot"])
    words = ["--snapshot", old, "--layout", "trellis", "--out", copied.root / "out"]
    export = run_lrm("export", "--root", copied.root, *words)
    assert (export.code, len(export.err.splitlines())) == (2, 1)
    assert f"snapshot {old}: shards of it are gone" in export.err
    snapshots = run_lrm("snapshot", "--list", "--root", copied.root, "--json").json()["snapshots"]
    assert {row["snapshot"]: bool(row["compacted"]) for row in snapshots} == {
        old: True,
        new["snapshot"]: False,
    }
    # Only the object that is kept again is rendered again.
    assert plan(copied) == {"render": {"compacted": 1}}
    build(copied)
    assert render_counts(copied)[dropped] == 2
    assert sum(render_counts(copied).values()) == len(before)
    assert plan(copied) == {}
    assert run_lrm("verify", "--root", copied.root).code == 0


def test_compaction_keeps_a_shard_whose_commit_may_be_pending(copied: BuiltDataset):
    (shard, *_) = sorted(copied.root.glob("shards/*/*.tar"))
    orphans = [shard.with_name(f"0123456789abcdef{suffix}") for suffix in (".tar", ".parquet")]
    for orphan in orphans:
        orphan.write_bytes(shard.with_suffix(orphan.suffix).read_bytes())
    words = ["compact", "--root", copied.root, "--json"]
    for answer in (run_lrm(*words, "--dry-run").json(), run_lrm(*words).json()):
        assert answer["deleted"]["files"] == 0
        assert list(answer["skipped"]) == [str(orphans[0].relative_to(copied.root))]
        assert "may be pending" in next(iter(answer["skipped"].values()))
    hours_ago = time.time() - 2 * 3600
    os.utime(orphans[0], (hours_ago, hours_ago))
    assert run_lrm(*words).json()["deleted"]["files"] == 0
    os.utime(orphans[1], (hours_ago, hours_ago))
    report = run_lrm(*words).json()
    assert (report["deleted"]["files"], report["skipped"]) == (2, {})
    assert not any(orphan.exists() for orphan in orphans)
    assert run_lrm("verify", "--root", copied.root).code == 0


def _without_caption(dataset: BuiltDataset, path: Path, asset_id: str) -> None:
    (source,) = dataset.source.glob("*.csv")
    uid = asset_id.partition(":")[2]
    lines = source.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(uid)))


def test_retry_clears_failures(copied: BuiltDataset):
    words = ["retry", "--root", copied.root, "--json"]
    assert run_lrm(*words).code == 2
    assert run_lrm(*words, "--kind", "timeout").json()["kinds"] == {"malformed": 1}
    assert plan(copied) == {}
    (asset_id,) = run_lrm(*words, "--kind", "malformed").json()["cleared"]
    status = run_lrm("status", "--root", copied.root, "--json").json()
    assert (status["failed"], status["pending"]) == ({}, 1)
    assert plan(copied) == {"fetch": {"retry": 1}}
    assert build(copied)["failed"] == {"malformed": 1}
    assert run_lrm(*words, asset_id).json()["cleared"] == [asset_id]
    first = next(iter(kept_locations(copied)))
    assert run_lrm(*words, first).json()["unchanged"] == [first]
    assert run_lrm(*words, "objaverse:nope").code == 2


def test_writing_commands_exclude_each_other(copied: BuiltDataset):
    root = open_root(str(copied.root))
    build_words = ["build", *copied.words, "--root", copied.root, "--json"]
    with exclusive_lock(root, "lrm build"):
        for words in (build_words, ["compact", "--root", copied.root]):
            result = run_lrm(*words)
            assert (result.code, result.out) == (2, "")
            assert "`lrm build` by " in result.err
            assert len(result.err.splitlines()) == 1
        # A command that only appends to the catalog needs no lock.
        assert run_lrm("retry", "--root", copied.root, "--kind", "timeout").code == 0
        answers: list[Answer] = []
        waiting = threading.Thread(target=lambda: answers.append(run_lrm(*build_words, "--wait")))
        waiting.start()
        time.sleep(2)
        assert not answers
    waiting.join()
    assert answers[0].code == 0, answers[0].err


def test_a_second_build_names_the_first_and_is_refused(built_dataset: BuiltDataset, tmp_path: Path):
    root = tmp_path / "root"
    words = ["build", *built_dataset.words, "--root", str(root)]
    first = start_lrm(words)
    deadline = time.monotonic() + 60
    while not (root / "dataset.json").exists() and time.monotonic() < deadline:
        assert first.poll() is None
        time.sleep(0.1)
    second = run_lrm(*words)
    assert second.code == 2
    assert f"(process {first.pid}, since" in second.err
    first.send_signal(signal.SIGKILL)
    first.wait()
    with exclusive_lock(Storage(str(root)), "lrm build"):
        pass
