"""Shards after they are written: damage, takedowns, compaction, one writer at a time."""

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
from tests.support.datasets import Built
from tests.support.lrm import Answer, run_lrm
from tests.support.processes import start


@pytest.fixture
def copied(built: Built, tmp_path: Path) -> Built:
    """A dataset that a test may change, without the snapshots of other tests."""
    copy = Built(tmp_path / "root", built.source)
    shutil.copytree(built.root, copy.root)
    shutil.rmtree(copy.root / "snapshots", ignore_errors=True)
    return copy


def build(dataset: Built, *words: str) -> dict:
    return run_lrm("build", *dataset.words, *words, "--root", dataset.root, "--json").json()


def plan(dataset: Built, *words: str) -> dict:
    return run_lrm("plan", *dataset.words, *words, "--root", dataset.root, "--json").json()["work"]


def kept(dataset: Built) -> dict[str, Any]:
    """What the catalog says of each kept sample."""
    dataset_state = load_dataset_state(open_root(str(dataset.root)))
    return {
        state.asset_id: {column.name: state.get(column) for column in SAMPLE_LOCATION}
        for state in dataset_state.kept
    }


def renders(dataset: Built) -> Counter[str]:
    """How often each object was rendered."""
    catalog = Catalog(Storage(str(dataset.root)))
    events = [
        record.event
        for asset_id in kept(dataset)
        for record in catalog.history(asset_id)
        if record.event.stage == "render" and record.event.data.get("staging")
    ]
    return Counter(event.asset_id for event in events)


def shard_bytes(dataset: Built) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in dataset.root.glob("shards/*/*")}


def freeze(dataset: Built, *words: str) -> dict:
    return run_lrm("snapshot", "--root", dataset.root, "--json", *words).json()


def digest(dataset: Built, snapshot: str) -> str:
    """Of all that a training run can read."""
    root, hasher = open_root(str(dataset.root)), hashlib.sha256()
    for sample in open_snapshot(root, snapshot).samples:
        members = read_members(root, sample.shard, sample.entry, sample.entry.members)
        hasher.update(b"".join(members[name] for name in sorted(members)))
    return hasher.hexdigest()


def check_sum(status: dict) -> None:
    parts = (status["kept"], *status["dropped"].values(), *status["failed"].values())
    assert sum(parts) + status["pending"] == status["listed"]


def test_a_good_dataset_is_good(built: Built):
    answer = run_lrm("verify", "--root", built.root)
    assert (answer.code, "no problems" in answer.out) == (0, True)


def test_damage_is_named_and_a_build_redoes_only_that(copied: Built):
    before, places = shard_bytes(copied), kept(copied)
    snapshot = freeze(copied)["snapshot"]
    frozen = digest(copied, snapshot)
    by_shard: dict[str, list[str]] = {}
    for asset_id, place in places.items():
        by_shard.setdefault(place["shard"], []).append(asset_id)
    flipped, without_index, missing = sorted(by_shard, key=lambda s: (-len(by_shard[s]), s))
    assert len(by_shard[missing]) == 1
    victim = by_shard[flipped][1]
    entries, _ = read_index(open_root(str(copied.root)), flipped)
    entry = next(entry for entry in entries if entry.key == places[victim]["sample"])
    data = bytearray((copied.root / flipped).read_bytes())
    data[entry.offsets[4] + 7] ^= 1
    (copied.root / flipped).write_bytes(data)
    (copied.root / index_path(without_index)).unlink()
    (copied.root / missing).unlink()
    for _ in range(2):  # to say it twice changes nothing
        answer = run_lrm("verify", "--root", copied.root, "--json")
        assert answer.code == 1
        found = json.loads(answer.out)
        problems = {(item["file"], item["asset_id"], item["member"]) for item in found["findings"]}
        assert problems == {
            (flipped, victim, entry.members[4]),
            (index_path(without_index), None, None),
            (missing, None, None),
            (missing, by_shard[missing][0], None),
        }
        redone = {victim, by_shard[missing][0]}
        assert set(found["damaged"]) == redone | set(by_shard[without_index])
    assert plan(copied) == {"render": {"retry": 2}, "pack": {"damaged": 4}}
    status = run_lrm("status", "--root", copied.root, "--json").json()
    assert status["failed"]["sample_damaged"] == 2
    check_sum(status)
    assert freeze(copied)["samples"] == len(places) - 6
    build(copied)
    assert run_lrm("verify", "--root", copied.root).code == 0
    assert {asset_id for asset_id, count in renders(copied).items() if count == 2} == redone
    # The very files are back, so the old snapshot holds.
    assert shard_bytes(copied) == before
    assert digest(copied, snapshot) == frozen
    assert plan(copied) == {}


def test_a_takedown(copied: Built, tmp_path: Path):
    ids = list(kept(copied))
    assert run_lrm("remove", "--root", copied.root, "objaverse:nope", ids[0]).code == 2
    assert run_lrm("remove", "--root", copied.root).code == 2
    assert list(kept(copied)) == ids
    names = tmp_path / "names.txt"
    names.write_text(f"# asked by their author\n{ids[1]}\n\n{ids[0]}  # twice\n")
    words = [
        "remove",
        "--root",
        copied.root,
        ids[0],
        "--from",
        names,
        "--reason",
        "asked",
        "--json",
    ]
    assert run_lrm(*words).json() == {"removed": ids[:2], "unchanged": []}
    assert run_lrm(*words).json() == {"removed": [], "unchanged": ids[:2]}
    status = run_lrm("status", "--root", copied.root, "--json").json()
    assert status["dropped"]["removed"] == 2
    check_sum(status)
    assert plan(copied) == {}
    assert build(copied) == status
    assert freeze(copied)["samples"] == len(ids) - 2
    found = run_lrm("inspect", "--root", copied.root, ids[0], "--json").json()
    assert (found["state"], found["dropped"][0]["reason"]) == ("dropped", "removed")
    assert (found["dropped"][0]["measured"], found["samples"]) == ("asked", [])
    undone = run_lrm("remove", "--undo", "--root", copied.root, *ids[:2], "--json").json()
    assert undone == {"restored": ids[:2], "unchanged": []}
    assert list(kept(copied)) == ids


def test_compaction_frees_what_no_protected_snapshot_reads(copied: Built):
    before = kept(copied)
    old = freeze(copied)["snapshot"]
    frozen = digest(copied, old)
    removed, dropped = list(before)[:2]
    run_lrm("remove", "--root", copied.root, removed)
    captions = copied.root / "captions.csv"
    _without_caption(copied, captions, dropped)
    here = ["--captions", str(captions)]
    build(copied, *here)
    shard = before[removed]["shard"]
    said = run_lrm("compact", "--root", copied.root).out
    assert f"snapshot {old} keeps" in said
    assert digest(copied, old) == frozen
    assert kept(copied).keys() == before.keys() - {removed, dropped}
    assert run_lrm("verify", "--root", copied.root).code == 0
    new = freeze(copied, "--protect-days", "0")
    assert new["licences"] == {"cc0": len(before) - 2}
    dry = run_lrm("compact", "--root", copied.root, "--release", old, "--dry-run", "--json").json()
    assert (copied.root / shard).exists()
    done = run_lrm("compact", "--root", copied.root, "--release", old, "--json").json()
    assert dry == done | {"dry_run": True}
    assert (done["held"], done["outlived"]) == ({}, [old])
    assert not (copied.root / shard).exists()
    digest(copied, new["snapshot"])
    words = ["--snapshot", old, "--layout", "trellis", "--out", copied.root / "out"]
    refused = run_lrm("export", "--root", copied.root, *words)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert f"snapshot {old}: shards of it are gone" in refused.err
    listed = run_lrm("snapshot", "--list", "--root", copied.root, "--json").json()["snapshots"]
    assert {row["snapshot"]: bool(row["compacted"]) for row in listed} == {
        old: True,
        new["snapshot"]: False,
    }
    # What comes back is rendered once more, and nothing else is.
    assert plan(copied) == {"render": {"compacted": 1}}
    build(copied)
    assert renders(copied)[dropped] == 2
    assert sum(renders(copied).values()) == len(before)
    assert plan(copied) == {}
    assert run_lrm("verify", "--root", copied.root).code == 0


def test_compaction_spares_a_shard_whose_commit_may_be_on_its_way(copied: Built):
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
    done = run_lrm(*words).json()
    assert (done["deleted"]["files"], done["skipped"]) == (2, {})
    assert not any(orphan.exists() for orphan in orphans)
    assert run_lrm("verify", "--root", copied.root).code == 0


def _without_caption(dataset: Built, path: Path, asset_id: str) -> None:
    (source,) = dataset.source.glob("*.csv")
    uid = asset_id.partition(":")[2]
    lines = source.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(uid)))


def test_a_failure_is_forgotten_on_request(copied: Built):
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
    first = next(iter(kept(copied)))
    assert run_lrm(*words, first).json()["unchanged"] == [first]
    assert run_lrm(*words, "objaverse:nope").code == 2


def test_one_writer_at_a_time(copied: Built):
    root = open_root(str(copied.root))
    here = ["build", *copied.words, "--root", copied.root, "--json"]
    with exclusive_lock(root, "lrm build"):
        for words in (here, ["compact", "--root", copied.root]):
            refused = run_lrm(*words)
            assert (refused.code, refused.out) == (2, "")
            assert "`lrm build` on" in refused.err
            assert len(refused.err.splitlines()) == 1
        # Whoever only adds to the catalog may go on.
        assert run_lrm("retry", "--root", copied.root, "--kind", "none").code == 0
        answers: list[Answer] = []
        waiting = threading.Thread(target=lambda: answers.append(run_lrm(*here, "--wait")))
        waiting.start()
        time.sleep(2)
        assert not answers
    waiting.join()
    assert answers[0].code == 0, answers[0].err


def test_two_builds_at_once(built: Built, tmp_path: Path):
    root = tmp_path / "root"
    words = ["build", *built.words, "--root", str(root)]
    first = start(words)
    deadline = time.monotonic() + 60
    while not (root / "dataset.json").exists() and time.monotonic() < deadline:
        assert first.poll() is None
        time.sleep(0.1)
    refused = run_lrm(*words)
    assert refused.code == 2
    assert f"(process {first.pid}, since" in refused.err
    first.send_signal(signal.SIGKILL)
    first.wait()
    with exclusive_lock(Storage(str(root)), "lrm build"):
        pass
