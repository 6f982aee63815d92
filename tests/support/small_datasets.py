"""Datasets of events only: losses and listings are tested without any file of a model."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from core.storage import Storage
from dataset.catalog.event_log import Catalog
from dataset.root import write_build
from pipelines.building.build_config import BuildConfig
from pipelines.building.decide import Decider
from pipelines.building.guard.remembered import Remembered, read_memory
from pipelines.building.listing import write_parts
from pipelines.building.object_table import latest_of
from pipelines.building.plan import Plan, load_plan
from pipelines.building.projection import with_event
from pipelines.sources.folder import Folder
from tests.support.listings import STAGE_DATA, MemorySource

NAMES = [f"{number:02}" for number in range(40)]


@dataclass
class SmallDataset:
    """A dataset of events only. Tests may change its source and its captions."""

    folder: Path
    source: MemorySource | Folder

    @property
    def root(self) -> Storage:
        return Storage(str(self.folder / "root"))

    def set_captions(self, names: list[str]) -> None:
        (self.folder / "captions.csv").write_text("".join(f"{name},a thing\n" for name in names))

    def config(self, **settings) -> BuildConfig:
        filters = {name: {"enabled": False} for name in ("textured", "multi_object")}
        filters |= settings.pop("filters", {})
        captions = str(self.folder / "captions.csv")
        values = {"source": "s", "root": self.root.uri, "captions": captions, "filters": filters}
        return BuildConfig.load(values | settings)

    def plan(self, **settings) -> Plan:
        config, latest = self.config(**settings), latest_of(self.root)
        return load_plan(config, self.source, self.root, latest, read_memory(self.root))

    def build(self, packed: Collection[str] = NAMES, *, is_old: bool = False, **settings) -> None:
        """List the source, and record a result of every stage for the objects in `packed`.

        With `is_old`, the record of the build is that of a version that remembers no rigs.
        """
        config, plan = self.config(**settings), self.plan(**settings)
        events, decider = list(plan.listing.events()), Decider(config)
        names = [asset_id.partition(":")[2] for asset_id in plan.objects.ids.to_pylist()]
        rows = [row for row, name in enumerate(names) if name in packed]
        for state in plan.objects.states(rows):
            for stage in decider.stages:
                event = decider.identities.event(stage, state, data=STAGE_DATA[stage.name])
                state = with_event(state, event)
                events.append(event)
        rigs = {} if is_old else read_memory(self.root).rigs
        rigs = {**rigs, config.rig: Remembered(config=config)}
        entries = {} if is_old else {rig: each.entry() for rig, each in rigs.items()}
        write_build(self.root, {"config": config.dump(), "rigs": entries})
        Catalog(self.root).commit(events, f"{len(events)} events of {config.rig}", 1)
        write_parts(self.root, config, plan.listing)

    def change(self, names: list[str], version: str = "1", tag: str = "") -> None:
        """Change the version and the tag of objects; of those with the tag `gone`, list none."""
        for part in self.source.content.values():
            for name in part.keys() & set(names):
                part[name] = (version, tag, "")
                if tag == "gone":
                    del part[name]


def small_dataset(folder: Path) -> SmallDataset:
    """Return a dataset before its first build. Its source lists `NAMES` in two parts."""
    listed = dict.fromkeys(NAMES, ("1", "", ""))
    parts = {"p1": dict(list(listed.items())[:10]), "p2": dict(list(listed.items())[10:])}
    dataset = SmallDataset(folder, MemorySource(parts))
    dataset.set_captions(NAMES)
    return dataset
