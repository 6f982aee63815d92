"""Losses of kept objects: what counts as one, and from which share on a build refuses it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import BadInput
from dataset.catalog.event_log import Catalog, Event
from pipelines.building.guard.groups import Group
from pipelines.building.guard.kept_losses import Losses, RigLosses
from pipelines.building.plan import Plan
from pipelines.sources.folder import Folder
from pipelines.sources.stored_files import MISSING
from tests.support.fake_glbs import fake_glb
from tests.support.listings import MemorySource
from tests.support.small_datasets import NAMES, SmallDataset, small_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> SmallDataset:
    return small_dataset(tmp_path)


def causes(plan: Plan) -> dict[str, int]:
    return {cause: group.count for cause, group in plan.losses.worst.causes.items()}


def dropped(plan: Plan) -> dict[str, int]:
    return {reason: group.count for reason, group in plan.changes.dropped.items()}


def counts(plan: Plan) -> dict[str, int]:
    groups = plan.changes.groups
    return {kind: group.count for kind, group in groups.items() if group.count}


def unusable(data: SmallDataset) -> None:
    data.source.problems = dict.fromkeys(NAMES[:5], "tags is a number")
    data.change(NAMES[:5], tag="other")


BY_DATA: dict[str, tuple[Callable[[SmallDataset], object], dict[str, int], dict[str, int]]] = {
    "vanished": (lambda data: data.change(NAMES[:5], tag="gone"), {"vanished": 5}, {}),
    "a part less": (lambda data: data.source.content.pop("p1"), {"vanished": 10}, {}),
    "no caption": (lambda data: data.set_captions(NAMES[5:]), {"no_caption": 5}, {"no_caption": 5}),
    "tags": (
        lambda data: data.change(NAMES[:5], tag="low-poly"),
        {"lowpoly_tag": 5},
        {"lowpoly_tag": 5},
    ),
    "annotations": (unusable, {"bad_annotation": 5}, {}),
    "files": (lambda data: data.change(NAMES[:5], version=MISSING), {"missing": 5}, {}),
}


@pytest.mark.parametrize("change", BY_DATA)
def test_what_changed_data_loses_is_counted_by_cause(dataset, change):
    dataset.build()
    alter, expected, expected_drops = BY_DATA[change]
    alter(dataset)
    plan = dataset.plan()
    assert (causes(plan), dropped(plan), plan.losses.worst.kept) == (expected, expected_drops, 40)
    with pytest.raises(BadInput, match=f"{sum(expected.values())} of 40 objects with a sample"):
        plan.losses.check(None)
    plan.losses.check(0.25)


@pytest.mark.parametrize(
    ("num_kept", "num_lost", "accept", "is_refused"),
    [
        (40, 0, None, False),
        (40, 2, None, False),  # exactly 5 %
        (40, 3, None, True),
        (40, 3, 0.074, True),
        (40, 3, 0.075, False),
        (2, 1, None, False),  # a single object
        (2, 1, 0.0, False),
        (2, 2, None, True),
        (40, 2, 0.0, True),
        (40, 40, 1.0, False),
        (0, 0, None, False),
    ],
)
def test_a_loss_is_refused_above_the_accepted_share(num_kept, num_lost, accept, is_refused):
    group = Group(count=num_lost, examples=("folder:a", "folder:b", "folder:c")[:num_lost])
    rig = RigLosses(rig="lrm32", kept=num_kept, causes={"vanished": group})
    losses = Losses(rigs=[rig], remedy="restore it")
    assert bool(losses.refusal(accept)) == losses.to_dict(accept)["refused"] == is_refused
    if is_refused:
        # The line names a share that is enough.
        accepted = float(losses.refusal(accept).rpartition("--accept-loss ")[2])
        losses.check(accepted)


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        ({"caption": {"min_characters": 8}}, "no_caption"),
        ({"occupancy": {"min_share": 0.3}}, "low_occupancy"),
        ({"licence": {"enabled": True, "allowed": ["cc0"]}}, "licence_not_allowed"),
    ],
)
def test_what_a_threshold_drops_is_listed_and_no_loss(dataset, filters, reason):
    dataset.build()
    plan = dataset.plan(filters=filters)
    assert (causes(plan), dropped(plan)) == ({}, {reason: 40})
    plan.losses.check(0.0)


def test_settings_and_data_that_change_together_are_told_apart(dataset):
    """Of the objects that a new filter drops, those with the old tags are intended."""
    dataset.change(NAMES[:20], tag="low-poly")
    dataset.build(filters={"lowpoly": {"enabled": False}})
    dataset.change(NAMES[20:25], tag="low-poly")
    plan = dataset.plan()
    assert (causes(plan), dropped(plan)) == ({"lowpoly_tag": 5}, {"lowpoly_tag": 25})
    assert plan.losses.worst.kept == 20


@pytest.mark.parametrize(
    "settings",
    [{"render": {"samples": 2}}, {"rig": "one2345"}, {"geometry": True}],
    ids=["render", "rig", "geometry"],
)
def test_samples_that_will_be_redone_count_as_kept(dataset, settings):
    dataset.build()
    dataset.change(NAMES[:5], tag="gone")
    plan = dataset.plan(**settings)
    assert (causes(plan), plan.losses.worst.kept) == ({"vanished": 5}, 40)


def test_objects_without_a_sample_or_removed_are_no_loss(dataset):
    dataset.build(NAMES[:30])
    removals = [
        Event(asset_id=f"objaverse:{name}", stage="remove", message="asked") for name in NAMES[:5]
    ]
    Catalog(dataset.root).commit(removals, "removals", 1)
    dataset.change([*NAMES[:5], *NAMES[30:]], tag="gone")
    plan = dataset.plan()
    assert (causes(plan), counts(plan), plan.losses.worst.kept) == ({}, {"vanished": 15}, 25)


def test_a_limit_and_another_source_lose_nothing(dataset):
    dataset.build()
    for plan in (dataset.plan(limit=3), dataset.plan(limit=12)):
        assert (causes(plan), counts(plan), plan.notes()) == ({}, {}, [])
    dataset.source = MemorySource({"00": {"x": ("1", "", "")}}, "folder", True)
    plan = dataset.plan()
    assert (causes(plan), counts(plan), plan.losses.worst.kept) == ({}, {"new": 1}, 40)


def test_the_changes_of_a_listing_are_counted_by_kind(dataset):
    dataset.change(NAMES[:2], tag="gone")
    dataset.build()
    assert dataset.plan().notes() == []
    dataset.change(NAMES[2:4], tag="gone")
    dataset.build([])
    dataset.source.content["p1"] |= {"02": ("1", "", ""), "00": ("1", "", "")}
    dataset.change(["04"], version="2")
    dataset.change(["05"], version=MISSING)
    dataset.change(["06", "07"], tag="wood")
    dataset.change(["08"], tag="gone")
    (dataset.folder / "captions.csv").write_text(
        "".join(f"{name},{'another' if name == '09' else 'a thing'}\n" for name in NAMES)
    )
    plan = dataset.plan()
    assert counts(plan) == {
        "vanished": 1,
        "files_missing": 1,
        "captions_changed": 1,
        "annotations_changed": 2,
        "files_changed": 1,
        "returned": 1,
        "new": 1,
    }
    assert plan.notes()[0] == "1 object vanishes from the source: objaverse:08"
    assert "2 other annotations change: objaverse:06, objaverse:07" in plan.notes()


def delete_models(folder: Path) -> None:
    for path in sorted(folder.glob("*.glb"))[:5]:
        path.unlink()


def cut_table(folder: Path) -> None:
    """Cut the table in the row of the eighth model: its own caption is shorter, others are lost."""
    lines = (folder / "objects.csv").read_text().splitlines(keepends=True)
    (folder / "objects.csv").write_text("".join(lines[:8]) + lines[8][:-4])


def only_header(folder: Path) -> None:
    (folder / "objects.csv").write_text("path,caption\n")


def delete_table(folder: Path) -> None:
    (folder / "objects.csv").unlink()


@pytest.mark.parametrize(
    ("collapse", "expected", "changed"),
    [
        (delete_models, {"vanished": 5}, {"vanished": 5}),
        (cut_table, {"no_caption": 32}, {"captions_changed": 33}),
        (only_header, {"no_caption": 40}, {"captions_changed": 40}),
        (delete_table, {"no_caption": 40}, {"captions_changed": 40}),
    ],
)
def test_a_folder_of_models_that_loses_files_or_captions(dataset, collapse, expected, changed):
    folder = dataset.folder / "models"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        (folder / f"{name}.glb").write_bytes(fake_glb(number, size=1000))
    table = ["path,caption\n", *(f"{name}.glb,a thing\n" for name in NAMES)]
    (folder / "objects.csv").write_text("".join(table))
    dataset.source = Folder(str(folder), None)
    dataset.build()
    assert (causes(dataset.plan()), counts(dataset.plan())) == ({}, {})
    collapse(folder)
    plan = dataset.plan()
    assert (causes(plan), counts(plan)) == (expected, changed)
    assert plan.losses.refusal(None)


@pytest.mark.parametrize(
    ("num_captions", "warning"),
    [(0, "all 40 listed"), (19, "21 of 40 listed"), (20, None)],
)
def test_a_build_warns_if_most_objects_have_no_caption(dataset, num_captions, warning):
    dataset.set_captions([*NAMES[:num_captions], "ff"])
    lines = [line for line in dataset.plan().warnings() if "no caption" in line]
    assert [line.partition(" objects ")[0] for line in lines] == ([warning] if warning else [])
    assert all("--captions" in line for line in lines)
    assert dataset.plan(filters={"caption": {"enabled": False}}).warnings() == []
