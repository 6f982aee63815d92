"""The table in docs/guide/refreshing.md: every kind of change, and the stages that it repeats."""

import csv
import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dataset.object_record import sample_key
from dataset.root import open_root
from pipelines.building.dataset_status import load_dataset_state
from pipelines.building.guard.groups import Group
from pipelines.building.guard.listing_changes import CHANGE_KINDS, ListingChanges
from pipelines.building.stages.pack import SHARD
from pipelines.cli import main
from pipelines.demo.demo_mirror import CAPTIONS_FILE
from tests.support.datasets import QUICK, events_of
from tests.support.paths import REPOSITORY

STAGES = ("list", "fetch", "inspect", "measure", "render", "geometry", "pack")


def rows() -> dict[str, tuple[set[str], str]]:
    """Return the table: per change, the stages that run and the text of the plan."""
    text = (REPOSITORY / "docs/guide/refreshing.md").read_text()
    lines = text.partition("| change | list |")[2].partition("\n\n")[0].splitlines()[2:]
    table = {}
    for line in lines:
        change, *marks, plan = (cell.strip() for cell in line.strip("|").split("|"))
        stages = {stage for stage, mark in zip(STAGES, marks, strict=True) if mark == "X"}
        table[change.replace("`", "")] = (stages, plan)
    return table


def group(values: dict[str, Any]) -> Group:
    return Group(count=values["count"], examples=tuple(values["examples"]))


@dataclass
class ChangingDataset:
    """A dataset of two kept objects and one without a caption. Tests may change its source."""

    folder: Path
    options: list[str] = field(default_factory=lambda: list(OPTIONS))

    @property
    def source(self) -> Path:
        return self.folder / "source"

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def lrm(self, command: str, *words: str) -> int:
        return main([command, "--root", str(self.root), *words])

    def build(self, *words: str) -> None:
        assert self.lrm("build", *self._words, *words) == 0

    def plan(self, capsys: pytest.CaptureFixture) -> str:
        """Return what `lrm plan` says: changes of the listing without ids, stages and reasons."""
        capsys.readouterr()
        assert self.lrm("plan", *self._words, "--json") == 0
        plan = json.loads(capsys.readouterr().out)
        groups = {k: group(v) for k, v in plan["listing"].items() if k in CHANGE_KINDS}
        dropped = {reason: group(v) for reason, v in plan["listing"]["dropped"].items()}
        lines = ListingChanges(groups=groups, dropped=dropped).lines()
        changes = [line.partition(": objaverse:")[0] for line in lines]
        work = [f"{stage}: {why}" for stage, reasons in plan["work"].items() for why in reasons]
        return "; ".join([*changes, *work])

    @property
    def _words(self) -> list[str]:
        captions = str(self.source / CAPTIONS_FILE)
        return ["--source", str(self.source), "--captions", captions, *self.options]

    def glb(self, uid: str) -> Path:
        return next(self.source.glob(f"glbs/*/{uid}.glb"))

    def edit(self, pattern: str, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change the JSON of the annotation files."""
        for path in self.source.glob(pattern):
            values = json.loads(gzip.decompress(path.read_bytes()))
            before = json.dumps(values)
            change(values)
            if json.dumps(values) != before:
                path.write_bytes(gzip.compress(json.dumps(values).encode()))

    def set_captions(self, **captions: str) -> None:
        file = self.source / CAPTIONS_FILE
        with open(file, newline="") as lines:
            known = dict(csv.reader(lines))
        with open(file, "w", newline="") as lines:
            csv.writer(lines, lineterminator="\n").writerows((known | captions).items())


OPTIONS = (*QUICK, "--rig", "zero123plus-cube", "--geometry", "--surface.points", "100")
"""A rig of few views with the normalisation of the default rig (cube)."""


@pytest.fixture(scope="module")
def uids(built_dataset) -> dict[str, str]:
    """Return uids of the demo: `kept`, `other` and `new` are kept, `silent` has no caption."""
    decisions = list(load_dataset_state(open_root(str(built_dataset.root))).with_decisions())
    kept = [state.asset_id for state, decision in decisions if decision.state == "kept"]
    silent = next(
        s.asset_id for s, d in decisions if d.dropped and d.dropped.reason == "no_caption"
    )
    new = kept[2]
    asset_ids = {"kept": kept[0], "other": kept[1], "new": new, "silent": silent}
    return {name: asset_id.partition(":")[2] for name, asset_id in asset_ids.items()}


@pytest.fixture(scope="module")
def ready(built_dataset, uids, tmp_path_factory) -> Path:
    """Return the folder of the dataset before each change."""
    dataset = ChangingDataset(tmp_path_factory.mktemp("refresh"))
    shutil.copytree(built_dataset.source, dataset.source)
    listed = {uids["kept"], uids["other"], uids["silent"]}
    dataset.edit("object-paths.json.gz", lambda paths: _keep(paths, listed))
    dataset.build()
    return dataset.folder


def _keep(paths: dict[str, Any], wanted: set[str]) -> None:
    for uid in set(paths) - wanted:
        del paths[uid]


@pytest.fixture
def dataset(ready: Path, tmp_path: Path) -> Iterator[ChangingDataset]:
    shutil.copytree(ready, tmp_path / "copy")
    copy = ChangingDataset(tmp_path / "copy")
    for path in ready.glob("source/glbs/*/*"):
        status = path.stat()
        os.utime(copy.folder / path.relative_to(ready), ns=(status.st_atime_ns, status.st_mtime_ns))
    yield copy


def timed_out(data: ChangingDataset, uids: dict[str, str]) -> None:
    """Add an object whose measurement times out."""
    new_object(data, uids)
    data.build("--blender.measure-seconds", "0.000001")


def new_object(data: ChangingDataset, uids: dict[str, str]) -> None:
    path = next(path for path in data.source.glob(f"glbs/*/{uids['new']}.glb"))
    relative = str(path.relative_to(data.source))
    data.edit("object-paths.json.gz", lambda paths: paths.update({uids["new"]: relative}))


def set_tags(data: ChangingDataset, uid: str, tag: str) -> None:
    def change(annotations: dict[str, Any]) -> None:
        if uid in annotations:
            annotations[uid]["tags"] = [{"name": tag}]

    data.edit("metadata/*.json.gz", change)


def correct(data: ChangingDataset, uids: dict[str, str]) -> None:
    set_tags(data, uids["kept"], "\ud800")
    data.build()
    set_tags(data, uids["kept"], "wooden")


def vanish(data: ChangingDataset, uids: dict[str, str]) -> None:
    data.edit("object-paths.json.gz", lambda paths: paths.pop(uids["kept"]))


def come_back(data: ChangingDataset, uids: dict[str, str]) -> None:
    paths = (data.source / "object-paths.json.gz").read_bytes()
    vanish(data, uids)
    data.build()
    (data.source / "object-paths.json.gz").write_bytes(paths)


def swap_bytes(data: ChangingDataset, uids: dict[str, str]) -> None:
    data.glb(uids["kept"]).write_bytes(data.glb(uids["other"]).read_bytes())


def retried(data: ChangingDataset, uids: dict[str, str]) -> None:
    timed_out(data, uids)
    # With the same limits, only `lrm retry` lets the object run again.
    data.options += ["--blender.measure-seconds", "0.000001"]
    assert data.lrm("retry", "--kind", "timeout") == 0
    data.options[-1] = "0.000001"


def damage(data: ChangingDataset, uids: dict[str, str]) -> None:
    dataset_state = load_dataset_state(open_root(str(data.root)))
    state = dataset_state.objects.state(dataset_state.objects.find(f"objaverse:{uids['kept']}"))
    path = data.root / state.get(SHARD)
    content = bytearray(path.read_bytes())
    name = f"{sample_key(state.asset_id)}.000.rgba.webp".encode()
    content[content.index(name) + 512 + 100] ^= 0xFF
    path.write_bytes(content)
    assert data.lrm("verify") == 1


def options(*words: str) -> Callable[[ChangingDataset, dict[str, str]], None]:
    return lambda data, uids: data.options.extend(words)


CHANGES: dict[str, Callable[[ChangingDataset, dict[str, str]], Any]] = {
    "nothing": lambda data, uids: None,
    "a new object": new_object,
    "other bytes in a file": swap_bytes,
    "a new modification time, the same bytes": lambda data, uids: data.glb(uids["kept"]).touch(),
    "a changed caption": lambda data, uids: data.set_captions(**{uids["kept"]: "another"}),
    "the first caption of an object": lambda data, uids: data.set_captions(
        **{uids["silent"]: "the first"}
    ),
    "other tags": lambda data, uids: set_tags(data, uids["kept"], "wooden"),
    "a tag that a filter drops": lambda data, uids: set_tags(data, uids["kept"], "Low-Poly"),
    "an annotation that could not be used is corrected": correct,
    "an object vanished from the source": vanish,
    "a vanished object is listed again": come_back,
    "a threshold of a filter": options("--filters.occupancy.min-share", "0.9"),
    "a filter turned off": options("--filters.caption.enabled", "false"),
    "limits of the inspection": options("--inspect.max-nodes", "1000"),
    "render settings": options("--render.resolution", "32"),
    "shells drawn from both sides": options("--no-render.cull-shells"),
    "a different rig": options("--rig", "one2345"),
    "a rig with a different normalisation": options("--rig", "zero123plus"),
    "other points of the geometry": options("--surface.points", "101"),
    "samples per shard, threads, time limits": options(
        "--shards.samples-per-shard", "2", "--blender.threads", "2", "--blender.render-seconds", "9"
    ),
    "other time limits after a timeout": timed_out,
    "lrm retry": retried,
    "lrm remove": lambda data, uids: data.lrm("remove", f"objaverse:{uids['kept']}"),
    "a sample damaged, named by lrm verify": damage,
}


def test_the_table_lists_the_changes_of_this_test():
    assert list(rows()) == list(CHANGES)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_repeats_the_stages_in_the_table(change, dataset, uids, capsys):
    expected_stages, expected_plan = rows()[change]
    CHANGES[change](dataset, uids)
    before = len(events_of(dataset.root))
    assert dataset.plan(capsys) == expected_plan
    if change == "lrm retry":
        del dataset.options[-2:]
    dataset.build()
    new_events = events_of(dataset.root)[before:]
    assert {event["stage"] for event in new_events} == expected_stages
    kinds = {event["kind"] for event in new_events if event["status"] == "failed"}
    assert kinds == set()
    assert dataset.plan(capsys) == ""
