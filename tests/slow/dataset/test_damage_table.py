"""Every damage to every file of the catalog and of `latest/`.

A reader either sees every event or fails with one line; `lrm verify` finds the damage; and after a
repair every event is there again except those that the repair names as lost.
"""

import contextlib
import itertools
import shutil
from pathlib import Path

import pytest

from core.errors import Damaged
from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from dataset.catalog.log_repair import plan_repair, repair_catalog
from tests.support.damage import DAMAGES, damage
from tests.support.damaged_catalogs import (
    FILES,
    IS_NO_DAMAGE,
    DamagedCatalog,
    file_of,
    latest,
    make_catalog,
)


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
    try:
        assert catalog.last_events() == truth
        assert catalog.all_events() == events
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
    # The record of another dataset makes the last commit doubtful: it is written again.
    assert file == "record" or {each: each.read_bytes() for each in before} == before
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
        lost = sum(loss.events or 0 for loss in repair.lost)
        # It is not taken for healthy before it has all that can be recovered.
        with contextlib.suppress(Damaged):
            assert (truth - catalog.all_events()).total() == lost
        catalog.repair()
        assert (truth - catalog.all_events()).total() == lost
        assert catalog.problems() == []
        if is_done:
            return
