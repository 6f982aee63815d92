"""Damage to any file of the catalog: nothing is read wrongly, everything is found and repaired.

A file is damaged in every way that a power loss, a disk or a restore may damage it. Then a reader
either sees every event or fails with one line; `check_catalog` finds the damage; and after a repair
every event is there again except those that the repair names as lost.
"""

import itertools
import json
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from core.errors import Damaged, WorkFailed
from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from dataset.catalog.latest import LatestEvents, Projection
from dataset.catalog.log_check import check_catalog
from dataset.catalog.log_repair import plan_repair, repair_catalog
from tests.support.damage import DAMAGES, damage

PROJECTION = Projection(
    version="1", types={"fetch": {"size": pa.int64()}}, read=lambda stage, status, data: dict(data)
)
STAGES = [("list", ""), ("fetch", ""), ("remove", "")]
COMMITS = 5


def latest(root: Storage) -> LatestEvents:
    return LatestEvents(root, Catalog(root), PROJECTION)


def last_events(root: Storage) -> dict:
    """Return the last event of each stage and object, as commands read it."""
    return {
        (stage, row["asset_id"]): (row["status"], row["content"])
        for (stage, _), table in latest(root).tables(STAGES).items()
        for row in table.to_pylist()
    }


def all_events(root: Storage) -> Counter:
    """Return every event of the log."""
    return Counter(
        (row["stage"], row["asset_id"], row["content"])
        for batch in Catalog(root).since(0)
        for row in batch.to_pylist()
    )


def make_dataset(folder: Path, mark: str) -> Path:
    """Write a catalog of five commits, with a checkpoint and base files in the middle."""
    root = Storage(str(folder))
    ids = [f"a:{name}" for name in "xyz"]

    def commit(number: int, stage: str, names: list[str]) -> None:
        events = [Event(asset_id=name, stage=stage, content=f"{mark}{number}") for name in names]
        Catalog(root).commit(events, f"run-{mark}{number}", 1)

    commit(1, "list", ids)
    commit(2, "fetch", ids[:2])
    DeltaTable(str(folder / "catalog")).create_checkpoint()
    latest(root).update_base()
    commit(3, "fetch", ids)
    latest(root).update_base()
    commit(4, "list", ids[1:])
    commit(5, "remove", ids[:1])
    return folder


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("intact"), "")


@pytest.fixture(scope="module")
def expected(intact) -> tuple[dict, Counter]:
    """Return the last events and all events of the intact dataset."""
    root = Storage(str(intact))
    return last_events(root), all_events(root)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("other"), "other")


def file_of(root: Path, kind: str) -> Path:
    """Return a file of a dataset by its meaning."""
    log = root / "catalog/_delta_log"
    if kind.startswith("commit"):
        return log / f"{int(kind[-1]):020}.json"
    if kind.startswith("events"):
        commit = Storage(str(root)).read(f"catalog/_delta_log/{int(kind[-1]):020}.json").decode()
        return root / "catalog" / commit.partition('"path":"')[2].partition('"')[0]
    if kind == "base":
        files = json.loads((root / "latest/index.json").read_text())["files"]
        return root / next(path for stage, _, path, *_ in files if stage == "fetch")
    paths = {"hint": "_last_checkpoint", "checkpoint": f"{2:020}.checkpoint.parquet"}
    return log / paths[kind] if kind in paths else root / "latest/index.json"


FILES = [
    *("commit0", "commit1", "commit2", "commit3", "commit5", "events1", "events4", "events5"),
    *("hint", "checkpoint", "base", "index"),
]
NO_DAMAGE = {("hint", "deleted"), ("index", "deleted"), ("commit0", "deleted")}
"""These files may be deleted: they are copies, or a checkpoint takes their place."""


@pytest.mark.parametrize(("file", "kind"), [*itertools.product(FILES, [*DAMAGES, "replaced"])])
def test_damage_is_found_and_repaired(intact, expected, other, tmp_path, file, kind):
    folder = tmp_path / "root"
    shutil.copytree(intact, folder)
    truth, events = expected
    path = file_of(folder, file)
    damage(path, kind, file_of(other, file))
    root = Storage(str(folder))
    try:
        assert last_events(root) == truth or (file, kind) == ("commit5", "deleted")
        assert all_events(root) == events or (file, kind) == ("commit5", "deleted")
    except Damaged as error:
        assert "lrm repair --root" in str(error) and "\n" not in str(error)
    state = check_catalog(root)
    problems = [*state.problems] or latest(root).problems()
    assert problems or (file, kind) in NO_DAMAGE or kind in ("flipped", "replaced")
    before = {path.name: path.read_bytes() for path in folder.rglob("*.json")}
    repair = plan_repair(root)
    repair_catalog(root, repair)
    assert check_catalog(root).problems == []
    assert latest(root).problems() == []
    lost = sum(loss.events or 0 for loss in repair.lost)
    found = all_events(root)
    assert sum((events - found).values()) == lost
    assert (found - events).total() == 0
    if not lost:
        assert last_events(root) == truth
    # Nothing that was intact is changed, and no damaged byte is destroyed.
    for name, data in before.items():
        kept = folder / "catalog/_delta_log" / name
        if kept.exists() and name != path.name:
            assert kept.read_bytes() == data
    # The dataset can be used, and a second repair finds nothing.
    latest(root).update_base()
    Catalog(root).commit([Event(asset_id="a:x", stage="fetch", content="new")], "later", 1)
    assert last_events(root)["fetch", "a:x"] == ("ok", "new")
    assert not plan_repair(root).is_needed


def test_lost_events_are_named(intact, tmp_path):
    folder = shutil.copytree(intact, tmp_path / "root")
    root = Storage(str(folder))
    file_of(folder, "events5").unlink()
    (loss,) = plan_repair(root).lost
    assert loss.outcomes == {"remove ok": 1}
    assert "1 event of version 5" in str(loss) and "1 remove ok of a:x" in str(loss)
    repair_catalog(root, plan_repair(root))
    assert check_catalog(root).losses == [str(loss)]


def test_an_older_catalog_is_believed_over_newer_base_files(intact, tmp_path):
    """A takedown after a restore from a backup counts, whatever `latest/` has."""
    folder = shutil.copytree(intact, tmp_path / "root")
    root = Storage(str(folder))
    latest(root).update_base()
    for number in (3, 4, 5):
        file_of(folder, f"events{number}").unlink()
        file_of(folder, f"commit{number}").unlink()
    for number in range(3, 7):  # the restored catalog is continued
        Catalog(root).commit([Event(asset_id="a:y", stage="remove")], f"again-{number}", 1)
        assert ("remove", "a:x") not in last_events(root)
        assert last_events(root)["remove", "a:y"] == ("ok", "")
        assert latest(root).problems() != []
    reader = latest(root)
    reader.tables(STAGES)
    assert reader.needs_update
    reader.update_base()
    assert latest(root).problems() == []


@pytest.mark.parametrize("left", ["latest", "shards", "snapshots", "events"])
def test_a_missing_log_is_an_error_if_anything_shows_that_there_was_one(intact, tmp_path, left):
    folder = tmp_path / "root"
    (folder / left).mkdir(parents=True)
    if left == "latest":
        shutil.copy(intact / "latest/index.json", folder / "latest/index.json")
    elif left == "events":
        shutil.copytree(intact / "catalog", folder / "catalog")
        shutil.rmtree(folder / "catalog/_delta_log")
    root = Storage(str(folder))
    for read in (last_events, all_events):
        with pytest.raises(Damaged, match="the catalog has no log"):
            read(root)
    with pytest.raises(Damaged, match="the catalog has no log"):
        Catalog(root).commit([Event(asset_id="a:x", stage="list")], "run", 1)
    if left == "events":
        repair_catalog(root, plan_repair(root))
        assert all_events(root) == all_events(Storage(str(intact)))
    else:
        with pytest.raises(WorkFailed, match="restore catalog/ from a backup"):
            plan_repair(root)


def test_a_merged_file_that_is_damaged_is_replaced_by_its_parts(intact, tmp_path, monkeypatch):
    folder = shutil.copytree(intact, tmp_path / "root")
    root = Storage(str(folder))
    truth, events = last_events(root), all_events(root)
    monkeypatch.setattr("dataset.catalog.event_log._COMPACT_FILES", 2)
    Catalog(root).compact()
    (merged,) = folder.glob("catalog/part-*.parquet")
    merged.write_bytes(bytes(merged.stat().st_size))
    with pytest.raises(Damaged, match="lrm repair"):
        all_events(root)
    repair = plan_repair(root)
    assert repair.lost == []
    repair_catalog(root, repair)
    assert (last_events(root), all_events(root)) == (truth, events)


class Killed(BaseException):
    """The end of a process that is killed."""


@pytest.mark.parametrize("file", ["commit0", "commit2", "commit5", "events1", "checkpoint"])
def test_a_repair_that_is_killed_is_continued(intact, tmp_path, monkeypatch, file):
    truth = all_events(Storage(str(intact)))
    for steps in itertools.count():
        folder = shutil.copytree(intact, tmp_path / f"{steps}")
        root = Storage(str(folder))
        damage(file_of(folder, file), "emptied")
        lost = sum(loss.events or 0 for loss in plan_repair(root).lost)
        with monkeypatch.context() as patch:
            left = iter([None] * steps)
            for name in ("write", "delete"):
                original = getattr(Storage, name)

                def counting(self, *args, _original=original):
                    if next(left, "none") == "none":
                        raise Killed
                    return _original(self, *args)

                patch.setattr(Storage, name, counting)
            try:
                repair_catalog(root, plan_repair(root))
                is_done = True
            except Killed:
                is_done = False
        repair_catalog(root, plan_repair(root))
        assert (truth - all_events(root)).total() == lost
        assert check_catalog(root).problems == []
        if is_done:
            return
