"""Damage to the catalog: nothing is read wrongly, everything is found, repaired and named.

tests/slow/dataset/test_damage_table.py has every damage to every file.
"""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from core.errors import Damaged, WorkFailed
from dataset.catalog.event_columns import EVENT_SCHEMA
from dataset.catalog.event_files import write_events
from dataset.catalog.event_log import Catalog, Event
from dataset.catalog.events import event_row
from dataset.catalog.log_check import check_catalog
from dataset.catalog.log_commits import BATCH_BITS
from dataset.catalog.log_repair import plan_repair, repair_catalog
from tests.support.damage import damage
from tests.support.damaged_catalogs import DamagedCatalog, file_of, latest, make_catalog


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> Path:
    return make_catalog(tmp_path_factory.mktemp("intact"))


@pytest.fixture
def catalog(intact, tmp_path) -> DamagedCatalog:
    return DamagedCatalog(shutil.copytree(intact, tmp_path / "root"))


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("commit0", "emptied"),
        ("commit3", "deleted"),
        ("commit5", "emptied"),
        ("commit5", "deleted"),
        ("commit5", "made a folder"),
        ("commit5", "made a pipe"),
        ("events2", "made a pipe"),
        ("record", "halved"),
        ("events4", "zeroed"),
        ("checkpoint", "halved"),
    ],
)
def test_damage_is_an_error_and_repaired(intact, catalog, file, kind):
    truth = DamagedCatalog(intact).all_events()
    damage(file_of(catalog.folder, file), kind)
    if file not in ("commit0", "record"):  # the checkpoint, and the log, take their place
        with pytest.raises(Damaged, match=r"lrm repair --root [^\n]*$"):
            catalog.all_events()
    assert catalog.problems() != []
    lost = catalog.repair()
    assert (truth - catalog.all_events()).total() == lost == (2 if file.startswith("events") else 0)
    assert catalog.problems() == []
    assert not plan_repair(catalog.root).is_needed


@pytest.mark.parametrize("file", ["base", "index"])
@pytest.mark.parametrize("kind", ["halved", "flipped"])
def test_damaged_base_files_do_not_count_and_are_written_again(intact, catalog, file, kind, caplog):
    damage(file_of(catalog.folder, file), kind)
    assert [problem.is_derived for problem in catalog.problems()] == [True]
    for _ in range(2):
        assert catalog.last_events() == DamagedCatalog(intact).last_events()
    assert len(caplog.records) == 1  # one warning
    reader = latest(catalog.root)
    reader.tables([("fetch", "")])
    assert reader.needs_update
    reader.update_base()
    assert catalog.problems() == []


def test_lost_events_are_named(catalog):
    file_of(catalog.folder, "events5").unlink()
    repair = plan_repair(catalog.root)
    (loss,) = repair.lost
    assert "1 event of version 5" in str(loss)
    assert "1 remove ok of a:x" in str(loss)
    repair_catalog(catalog.root, repair)
    assert check_catalog(catalog.root).losses == [str(loss)]


def test_a_restored_catalog_is_believed_over_newer_base_files(catalog):
    """A takedown after a restore from a backup counts, whatever `latest/` has."""
    latest(catalog.root).update_base()
    for number in (3, 4, 5):
        file_of(catalog.folder, f"events{number}").unlink()
        file_of(catalog.folder, f"commit{number}").unlink()
    file_of(catalog.folder, "record").unlink()
    for number in range(3, 7):  # the restored catalog is continued
        removal = [Event(asset_id="a:y", stage="remove")]
        Catalog(catalog.root).commit(removal, f"again-{number}", 1)
        events = catalog.last_events()
        assert ("remove", "a:x") not in events
        assert events["remove", "a:y"] == ("ok", "")
        assert catalog.problems() != []


def write_late(catalog: DamagedCatalog, number: int, name: str) -> str:
    """Write a file of events as a writer does that read version `number` - 1, without a commit."""
    event = Event(asset_id=name, stage="remove")
    row = event_row(event, number << BATCH_BITS, datetime.now(UTC), "late")
    return write_events(catalog.root, pa.Table.from_pylist([row], schema=EVENT_SCHEMA)).path


def test_events_that_were_never_committed_are_no_damage(intact, catalog):
    """Their writer was killed before it reported anything."""
    write_late(catalog, 6, "a:y")
    assert catalog.problems() == []
    assert not plan_repair(catalog.root).is_needed
    assert catalog.all_events() == DamagedCatalog(intact).all_events()


def test_the_events_of_a_late_writer_are_recovered(catalog):
    """They are numbered from the version that it read, not from the one that it committed."""
    name = write_late(catalog, 4, "a:y")
    path = file_of(catalog.folder, "commit5")
    own = file_of(catalog.folder, "events5")
    path.write_text(path.read_text().replace(own.name, name))
    own.unlink()
    damage(path, "emptied")
    assert catalog.repair() == 0
    assert ("remove", "a:y") in catalog.last_events()


@pytest.mark.parametrize("source", ["commit2", "commit4"])
def test_a_commit_that_another_one_replaced_is_damaged(intact, catalog, source):
    """A copy of a later commit, or of an earlier one."""
    truth = DamagedCatalog(intact).all_events()
    shutil.copy(file_of(catalog.folder, source), file_of(catalog.folder, "commit3"))
    assert any("commit that was written" in str(problem) for problem in catalog.problems())
    assert catalog.repair() == 0
    assert catalog.all_events() == truth


def test_new_events_count_after_the_whole_log_was_lost(catalog):
    for path in (catalog.folder / "catalog/_delta_log", file_of(catalog.folder, "record")):
        damage(path, "deleted")
    catalog.repair()
    restored = [Event(asset_id="a:x", stage="remove", status="cleared")]
    Catalog(catalog.root).commit(restored, "later", 1)
    assert catalog.last_events()["remove", "a:x"] == ("cleared", "")


@pytest.mark.parametrize("left", ["latest", "shards", "snapshots", "events"])
def test_a_missing_log_is_an_error_if_anything_shows_that_there_was_one(intact, tmp_path, left):
    catalog = DamagedCatalog(tmp_path / "root")
    (catalog.folder / left).mkdir(parents=True)
    if left == "latest":
        shutil.copy(intact / "latest/index.json", catalog.folder / "latest")
    elif left == "events":
        shutil.copytree(intact / "catalog", catalog.folder / "catalog")
        shutil.rmtree(catalog.folder / "catalog/_delta_log")
    for use in (
        catalog.last_events,
        catalog.all_events,
        lambda: Catalog(catalog.root).commit([Event(asset_id="a:x", stage="list")], "run", 1),
    ):
        with pytest.raises(Damaged, match=r"the catalog has no log[^\n]*backup"):
            use()
    if left == "events":
        assert catalog.repair() == 0
        assert catalog.all_events() == DamagedCatalog(intact).all_events()
    else:
        with pytest.raises(WorkFailed, match="restore catalog/ from a backup"):
            catalog.repair()


def test_a_damaged_merged_file_is_replaced_by_its_parts(intact, catalog, monkeypatch):
    monkeypatch.setattr("dataset.catalog.event_log._COMPACT_FILES", 2)
    Catalog(catalog.root).compact()
    (merged,) = catalog.folder.glob("catalog/part-*.parquet")
    damage(merged, "zeroed")
    with pytest.raises(Damaged, match="lrm repair"):
        catalog.all_events()
    assert catalog.repair() == 0
    assert catalog.all_events() == DamagedCatalog(intact).all_events()


def name_of(descriptor: int) -> str:
    """Return the name of an open file or folder."""
    return Path(f"/proc/self/fd/{descriptor}").readlink().name


def test_what_is_committed_is_flushed_first(tmp_path, monkeypatch):
    """The file of events before its commit, and the commit before it is believed."""
    flushed: list[str] = []
    monkeypatch.setattr(
        "os.fsync", lambda number: flushed.append(Path(f"/proc/self/fd/{number}").readlink().name)
    )
    catalog = Catalog(DamagedCatalog(tmp_path).root)
    for number in (1, 2):
        flushed.clear()
        catalog.commit([Event(asset_id="a:x", stage="list")], "run", number)
        commit = file_of(tmp_path, f"commit{number}").name
        events = file_of(tmp_path, f"events{number}").name
        for name in (events, commit, "catalog", "_delta_log"):
            assert any(name[:64] in each for each in flushed)  # under a temporary name
        assert tmp_path.name in flushed or number == 2
