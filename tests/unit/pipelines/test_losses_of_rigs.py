"""Losses of datasets with several rigs: all share one listing, each has its own filters."""

from pathlib import Path

import pytest

from core.errors import BadInput
from dataset.catalog.event_log import Catalog, Event
from pipelines.building.guard.kept_losses import Losses
from pipelines.maintenance.compaction_catalog import read_usage
from pipelines.maintenance.garbage_losses import find_garbage_losses
from tests.support.listings import MemorySource
from tests.support.small_datasets import NAMES, SmallDataset, small_dataset

FIRST, SECOND = "lrm32", "zero123plus"
WITHOUT_CAPTIONS = {"captions": None, "filters": {"caption": {"enabled": False}}}


@pytest.fixture
def dataset(tmp_path: Path) -> SmallDataset:
    return small_dataset(tmp_path)


def lost(losses: Losses) -> dict[str, tuple[int, int, dict[str, int]]]:
    """Return the kept and lost objects of each rig, and the lost ones by cause."""
    return {
        rig.rig: (
            rig.kept,
            rig.objects,
            {cause: group.count for cause, group in rig.causes.items()},
        )
        for rig in losses.rigs
    }


def garbage(dataset: SmallDataset) -> Losses:
    return find_garbage_losses(dataset.root, read_usage(dataset.root).samples)


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("rig", [FIRST, SECOND])
def test_every_rig_counts_and_the_one_that_loses_is_named(dataset, rig, is_old):
    """The second rig has few samples, and loses none of them."""
    dataset.build(rig=FIRST, is_old=is_old)
    dataset.build(NAMES[:3], rig=SECOND, is_old=is_old)
    dataset.change(NAMES[20:], tag="gone")
    losses = dataset.plan(rig=rig).losses
    assert lost(losses) == {FIRST: (40, 20, {"vanished": 20}), SECOND: (3, 0, {})}
    assert losses.rigs[0].rig == rig
    with pytest.raises(BadInput, match=f"20 of 40 objects .* for the rig {FIRST} .*loss 0.5"):
        losses.check(None)
    assert losses.to_dict(0.5) | {"rig": FIRST, "refused": False} == losses.to_dict(0.5)


def test_the_rig_that_loses_the_largest_share_comes_first_and_the_others_are_named(dataset):
    dataset.build(rig=FIRST)
    dataset.build(NAMES[:4], rig=SECOND)
    dataset.change(NAMES[1:5], tag="gone")
    refusal = dataset.plan(rig=FIRST).losses.refusal(None)
    assert refusal.startswith("3 of 4 objects with a sample would be lost for the rig zero123plus")
    assert "also 4 of 40 for the rig lrm32" in refusal
    assert refusal.endswith("--accept-loss 0.75")
    dataset.plan(rig=FIRST).losses.check(0.75)


def test_one_lost_object_of_a_rig_does_not_hide_the_loss_of_another(dataset):
    dataset.build(rig=FIRST)
    dataset.build(NAMES[:1], rig=SECOND)
    dataset.change(NAMES[:4], tag="gone")
    assert "4 of 40" in dataset.plan(rig=SECOND).losses.refusal(None)


def test_captions_that_one_rig_gives_up_are_lost_for_another(dataset):
    dataset.build(rig=FIRST)
    plan = dataset.plan(rig=SECOND, **WITHOUT_CAPTIONS)
    assert lost(plan.losses)[FIRST] == (40, 40, {"no_caption": 40})
    # To give them up for the only rig is intended.
    assert dataset.plan(rig=FIRST, **WITHOUT_CAPTIONS).losses.refusal(0.0) == ""


def test_each_rig_has_its_own_filters(dataset):
    """Captions matter to the first rig, tags to the second."""
    no_captions = {"caption": {"enabled": False}}
    dataset.build(rig=SECOND, filters=no_captions)
    dataset.build(rig=FIRST, filters={"lowpoly": {"enabled": False}})
    dataset.set_captions(NAMES[10:])
    dataset.change(NAMES[30:], tag="low-poly")
    expected = {FIRST: (40, 10, {"no_caption": 10}), SECOND: (40, 10, {"lowpoly_tag": 10})}
    settings = {FIRST: {"lowpoly": {"enabled": False}}, SECOND: no_captions}
    for rig, filters in settings.items():
        assert lost(dataset.plan(rig=rig, filters=filters).losses) == expected


def test_a_rig_without_remembered_settings_has_those_of_the_build(dataset):
    dataset.build(rig=FIRST, is_old=True)
    dataset.build(NAMES[:3], rig=SECOND, is_old=True)
    assert lost(dataset.plan(rig=SECOND, **WITHOUT_CAPTIONS).losses)[FIRST] == (40, 0, {})
    dataset.set_captions(NAMES[10:])
    losses = dataset.plan(rig=SECOND).losses
    assert lost(losses)[FIRST] == (40, 10, {"no_caption": 10})


def test_what_another_rig_has_dropped_or_removed_is_no_loss(dataset):
    dataset.build(rig=FIRST)
    dataset.change(NAMES[:5], tag="low-poly")
    dataset.build(rig=FIRST)
    removals = [
        Event(asset_id=f"objaverse:{name}", stage="remove", message="asked") for name in NAMES[5:9]
    ]
    Catalog(dataset.root).commit(removals, "removals", 1)
    dataset.build(NAMES[-1:], rig=SECOND)
    dataset.change(NAMES[:9], tag="gone")
    assert lost(dataset.plan(rig=SECOND).losses)[FIRST] == (31, 0, {})


def test_a_compaction_counts_the_garbage_of_every_rig(dataset):
    dataset.build(rig=FIRST)
    dataset.build(NAMES[:3], rig=SECOND)
    assert lost(garbage(dataset)) == {SECOND: (3, 0, {}), FIRST: (40, 0, {})}
    dataset.change(NAMES[20:], tag="gone")
    dataset.build([], rig=SECOND)
    losses = garbage(dataset)
    assert lost(losses) == {SECOND: (3, 0, {}), FIRST: (40, 20, {"vanished": 20})}
    assert "20 of 40 objects with a sample would be lost for the rig lrm32" in losses.refusal(None)


def test_a_compaction_uses_the_filters_of_each_rig(dataset):
    """The first rig keeps objects without a caption, the second, which was built last, does not."""
    dataset.set_captions(NAMES[30:])
    dataset.build(rig=FIRST, filters={"caption": {"enabled": False}})
    dataset.build(rig=SECOND)
    dataset.change(NAMES[:20], tag="gone")
    dataset.build([], rig=SECOND)
    assert lost(garbage(dataset)) == {SECOND: (10, 0, {}), FIRST: (40, 20, {"vanished": 20})}


def test_a_compaction_uses_the_last_filters_for_a_rig_without_remembered_settings(dataset):
    dataset.set_captions(NAMES[30:])
    dataset.build(rig=FIRST, is_old=True)
    dataset.build([], rig=SECOND, is_old=True)
    dataset.change([*NAMES[:20], *NAMES[-3:]], tag="gone")
    dataset.build([], rig=SECOND, is_old=True)
    assert lost(garbage(dataset))[FIRST] == (20, 3, {"vanished": 3})


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ([], []),
        (["x"], ["1 object of another source (folder) is not refreshed: give --source for that"]),
        ("xyz", ["3 objects of other sources (folder) are not refreshed: give --source for that"]),
    ],
)
def test_objects_of_sources_that_are_not_read_are_named(dataset, names, line):
    objaverse = dataset.source
    dataset.source = MemorySource({"00": dict.fromkeys(names, ("1", "", ""))}, "folder", True)
    dataset.build(names)
    dataset.source = objaverse
    plan = dataset.plan()
    assert plan.warnings() == line
    assert plan.to_dict()["listing"]["other_sources"] == ({"folder": len(names)} if names else {})
