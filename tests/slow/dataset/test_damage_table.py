"""Every damage to every file of the catalog and of `latest/`.

A reader either sees every event or fails with one line; `lrm verify` finds the damage; and after a
repair every event is there again except those that the repair names as lost.
"""

import itertools
import json
import shutil
from pathlib import Path

import pytest

from core.errors import Damaged
from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from dataset.catalog.log_repair import plan_repair, repair_catalog
from pipelines.building.object_table import latest_of
from tests.support.damage import DAMAGES, damage
from tests.support.damaged_catalogs import (
    FILES,
    IS_NO_DAMAGE,
    DamagedCatalog,
    file_of,
    latest,
    make_catalog,
)
from tests.support.lrm import run_lrm
from tests.support.small_datasets import small_dataset


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> Path:
    return make_catalog(tmp_path_factory.mktemp("intact"))


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    return make_catalog(tmp_path_factory.mktemp("other"), "other")


@pytest.mark.parametrize("kind", [*DAMAGES, "replaced"])
@pytest.mark.parametrize("file", FILES)
def test_damage_is_found_and_repaired(intact, other, tmp_path, file, kind):
    catalog = DamagedCatalog(shutil.copytree(intact, tmp_path / "root"))
    truth, events = (DamagedCatalog(intact).last_events(), DamagedCatalog(intact).all_events())
    path = file_of(catalog.folder, file)
    damage(path, kind, file_of(other, file))
    # Without its last commit, a log is one that was restored from an older copy.
    is_older = (file, kind) == ("commit5", "deleted")
    try:
        assert catalog.last_events() == truth or is_older
        assert catalog.all_events() == events or is_older
    except Damaged as error:
        assert "lrm repair --root" in str(error)
        assert "\n" not in str(error)
    assert catalog.problems() or (file, kind) in IS_NO_DAMAGE or kind in ("flipped", "replaced")
    log = catalog.folder / "catalog/_delta_log"
    before = {commit: commit.read_bytes() for commit in log.glob("*.json") if commit != path}
    lost = catalog.repair()
    found = catalog.all_events()
    assert (events - found).total() == lost
    assert (found - events).total() == 0
    assert catalog.problems() == []
    assert lost or catalog.last_events() == truth
    assert {commit: commit.read_bytes() for commit in before} == before
    latest(catalog.root).update_base()
    Catalog(catalog.root).commit([Event(asset_id="a:x", stage="fetch", content="new")], "later", 1)
    assert catalog.last_events()["fetch", "a:x"] == ("ok", "new")
    assert not plan_repair(catalog.root).is_needed


class Killed(BaseException):
    """The end of a process that is killed."""


def kill_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """End the process, as it were, before a storage writes or deletes one more file."""
    left = iter(range(steps))
    for name in ("write", "delete"):
        original = getattr(Storage, name)

        def counting(self, *args, original=original):
            if next(left, None) is None:
                raise Killed
            return original(self, *args)

        patch.setattr(Storage, name, counting)


@pytest.mark.parametrize("file", ["commit0", "commit2", "commit5", "events1", "checkpoint"])
def test_a_repair_that_is_killed_is_continued(intact, tmp_path, monkeypatch, file):
    truth = DamagedCatalog(intact).all_events()
    for steps in itertools.count():
        catalog = DamagedCatalog(shutil.copytree(intact, tmp_path / f"{steps}"))
        damage(file_of(catalog.folder, file), "emptied")
        repair = plan_repair(catalog.root)
        is_done = False
        with monkeypatch.context() as patch:
            kill_after(patch, steps)
            try:
                repair_catalog(catalog.root, repair)
                is_done = True
            except Killed:
                pass
        catalog.repair()
        lost = sum(loss.events or 0 for loss in repair.lost)
        assert (truth - catalog.all_events()).total() == lost
        assert catalog.problems() == []
        if is_done:
            return


COMMANDS = [
    ("status",),
    ("history",),
    ("list",),
    ("inspect", "ID"),
    ("snapshot",),
    ("verify",),
    ("compact", "--dry-run"),
    ("retry", "--kind", "malformed"),
    ("remove", "ID"),
    ("repair", "--dry-run"),
]
ROOT_FILES = {
    "first commit": "catalog/_delta_log/00000000000000000000.json",
    "commit": "catalog/_delta_log/00000000000000000001.json",
    "last commit": "catalog/_delta_log/00000000000000000002.json",
    "events": "catalog/*.parquet",
    "index": "latest/index.json",
    "base": "latest/*-list.parquet",
    "catalog": "catalog",
    "latest": "latest",
}


def ids_of(root: Path) -> list[str]:
    return run_lrm("list", "--root", root).out.split()


@pytest.fixture(scope="module")
def small_root(tmp_path_factory) -> Path:
    """Return a dataset of events with base files and one removal."""
    dataset = small_dataset(tmp_path_factory.mktemp("small"))
    dataset.build()
    latest_of(dataset.root).update_base()
    folder = Path(dataset.root.uri)
    assert run_lrm("remove", "--root", folder, ids_of(folder)[0]).code == 0
    return folder


@pytest.mark.parametrize("file", ROOT_FILES)
def test_every_command_ends_with_one_line_and_repair_mends(small_root, tmp_path, file):
    expected = run_lrm("status", "--root", small_root, "--json").json()
    name = ids_of(small_root)[1]
    kinds = ["deleted"] if file in ("catalog", "latest") else list(DAMAGES)
    for kind, words in itertools.product(kinds, COMMANDS):
        folder = tmp_path / f"{kind}-{words[0]}"
        shutil.copytree(small_root, folder)
        path = next(iter(sorted(folder.glob(ROOT_FILES[file]))))
        damage(path, kind)
        words = [name if word == "ID" else word for word in words]
        answer = run_lrm(words[0], "--root", folder, *words[1:])
        assert answer.code in (0, 1, 2), (kind, words)
        errors = [line for line in answer.err.splitlines() if "error:" in line]
        assert len(errors) <= 1
        assert "Traceback" not in answer.err
    if file != "catalog":
        for kind in kinds:
            folder = tmp_path / f"{kind}-status"
            assert run_lrm("repair", "--root", folder).code == 0
            status = run_lrm("status", "--root", folder, "--json")
            lost = run_lrm("verify", "--root", folder, "--json")
            assert status.code == 0
            if not json.loads(lost.out)["catalog"]["lost_before"]:
                assert status.json() == expected, kind
            assert "nothing to do" in run_lrm("repair", "--root", folder).out
