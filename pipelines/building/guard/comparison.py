"""The comparison of a plan with the last build: which results each changed setting invalidates."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from core.config import merge, nested, without
from pipelines.building.build_config import BuildConfig
from pipelines.building.decide import Decider, Decisions
from pipelines.building.estimates.cost import Cost, StageCost
from pipelines.building.guard.changes import Change, Changes
from pipelines.building.guard.remembered import Remembered, differences
from pipelines.building.guard.result_versions import RENDERER, RIG, present_versions, versions_of
from pipelines.building.stages.identities import Identities
from pipelines.building.stages.stage import Stage

__all__ = ["Comparison"]

_FILTERS = "filters."


class Comparison:
    """Compares the plan of a build with what the dataset remembers."""

    def __init__(
        self,
        config: BuildConfig,
        remembered: Remembered | None,
        *,
        decisions: Decisions,
        rows: Int64[np.ndarray, "m"],
        estimate: Cost,
    ) -> None:
        """Compare a plan under `config` with `remembered`, what its rig starts from, if anything.

        `rows` are the objects that need a stage, and `estimate` is the cost of all their work.
        """
        self._decisions = decisions
        self._columns = decisions.columns
        self._rows = rows
        self._estimate = estimate
        self._config = config
        self._remembered = remembered
        self._decider = Decider(config)
        self._stages = self._decider.stages

    @cached_property
    def accepted(self) -> dict[str, Any]:
        """The repeated work that a build of this plan begins (`Remembered.accepted`)."""
        return {
            stage.name: {"settings": self._digest(stage), "objects": count}
            for stage in self._stages
            if (count := int(self._is_again(stage).sum()))
        }

    @cached_property
    def changes(self) -> Changes:
        """The changes since the last build, with the work that they cause."""
        if self._remembered is None:
            return Changes()
        again = self._again()
        items = [self._setting(path, *pair, again) for path, pair in self._settings().items()]
        items += self._versions(again)
        named = frozenset[str]().union(*(item.again for item in items))
        items += self._unnamed(self._remembered, again.keys() - named)
        added = frozenset[str]().union(*(item.new for item in items))
        new = {
            stage.name: self._cost(stage, int(self._is_new(stage).sum()))
            for stage in self._stages
            if stage.name in added
        }
        return Changes(items=items, again=again, new=new)

    def _again(self) -> dict[str, StageCost]:
        """Return the results that are made again, by stage, without those of an interrupted build.

        An interrupted build was told to make them again, or they cost little.
        """
        begun = {} if self._remembered is None else self._remembered.accepted
        return {
            stage.name: self._cost(stage, work["objects"])
            for stage in self._stages
            if (work := self.accepted.get(stage.name)) is not None
            and not _continues(work, begun.get(stage.name))
        }

    def _cost(self, stage: Stage, count: int) -> StageCost:
        """Return the expected cost of a stage for this many objects of the plan."""
        mean = self._estimate.stages.get(stage.name)
        if mean is None or not mean.objects:
            return StageCost(objects=count)
        share = count / mean.objects
        hours = {"core_hours": mean.core_hours * share, "gpu_hours": mean.gpu_hours * share}
        return StageCost(objects=count, **hours)

    def _is_again(self, stage: Stage) -> Bool[np.ndarray, "n"]:
        """Return a mask of the objects that have a result of the stage and make it again.

        Their file is the same; the settings or versions of the stage differ.
        """
        columns, events = self._columns, stage.events
        has_result = columns.one_of(events.status, {"ok", "failed"})
        same_file = columns.same(events.content, stage.input_version)
        same_settings = columns.one_of(events.settings, {self._digest(stage)})
        return self._reaches(stage) & has_result & same_file & ~same_settings

    def _is_new(self, stage: Stage) -> Bool[np.ndarray, "n"]:
        """Return a mask of the objects that pass the stage for the first time."""
        valid = self._decider.valid(stage, self._columns)
        return self._reaches(stage) & ~valid & ~self._is_again(stage)

    def _reaches(self, stage: Stage) -> Bool[np.ndarray, "n"]:
        """Return a mask of the objects of the plan whose next stage is this or an earlier one."""
        reaches = np.zeros(len(self._columns), dtype=bool)
        reaches[self._rows] = True
        return reaches & (self._decisions.stage <= self._stages.index(stage))

    def _digest(self, stage: Stage) -> str:
        return self._decider.identities.settings(stage)

    def _settings(self) -> Mapping[str, tuple[Any, Any]]:
        assert self._remembered is not None
        return differences(self._remembered.config, self._config)

    def _setting(
        self, path: str, before: Any, after: Any, again: Mapping[str, StageCost]
    ) -> Change:
        """Return the change of one setting: the stages that it alone would change."""
        change = Change(name=path, before=before, after=after)
        if path.startswith(_FILTERS):
            return self._filter(change)
        reverted = _with(self._config, path, before)
        identities = Identities(reverted)
        changed, new = set(), set()
        for stage in self._stages:
            if not stage.is_enabled(reverted):
                new.add(stage.name)
            elif identities.settings(stage) != self._digest(stage):
                changed.add(stage.name)
        return replace(change, again=frozenset(changed & again.keys()), new=frozenset(new))

    def _filter(self, change: Change) -> Change:
        """Return the change of a filter with the number of objects that it alone decides otherwise.

        Everything else is as in the last build: other changes may make the measurements invalid.
        """
        config = _with(self._before, change.name, change.after)
        was = self._decisions_before.where("dropped")
        now = Decider(config).decide_all(self._columns).where("dropped")
        return replace(
            change, num_dropped=int((now & ~was).sum()), num_undropped=int((was & ~now).sum())
        )

    @cached_property
    def _before(self) -> BuildConfig:
        """The remembered settings, for the rig and the registered stages of this build."""
        assert self._remembered is not None
        present = {"rig": self._config.rig, "stages": self._config.stages}
        return self._remembered.config.model_copy(update=present)

    @cached_property
    def _decisions_before(self) -> Decisions:
        return Decider(self._before).decide_all(self._columns)

    def _versions(self, again: Mapping[str, StageCost]) -> list[Change]:
        """Return the changes of versions since the last build, if it recorded them."""
        assert self._remembered is not None
        before = self._remembered.versions or {}
        changes = []
        for name, after in present_versions(self._config).items():
            is_other_rig = name == RIG and self._remembered.config.rig != self._config.rig
            if before.get(name, after) == after or is_other_rig:
                continue
            concerned = {s.name for s in self._stages if name in versions_of(s, self._config)}
            stages = frozenset(concerned & again.keys())
            changes.append(Change(name=name, before=before[name], after=after, again=stages))
        return changes

    def _unnamed(self, remembered: Remembered, stages: set[str]) -> list[Change]:
        """Return the changes to which no setting and no recorded version leads.

        Such results come from a build before the last one, such as one that a build with `--limit`
        followed, from another rig, or from a version that did not record its versions.
        """
        by_name: defaultdict[str, set[str]] = defaultdict(set)
        for stage in self._stages:
            if stage.name in stages:
                is_rendered = RENDERER in versions_of(stage, self._config)
                unknown = remembered.versions is None and is_rendered
                by_name[RENDERER if unknown else stage.name].add(stage.name)
        present = present_versions(self._config)
        before = "an earlier version" if remembered.versions is None else "other settings"
        return [
            Change(name=name, before=before, after=present[name], again=frozenset(names))
            for name, names in by_name.items()
        ]


def _with(config: BuildConfig, path: str, value: Any) -> BuildConfig:
    """Return the configuration with another value of one setting."""
    values, _ = without(config.dump(), path.split("."))
    return BuildConfig.load(merge(values, nested(path, value)))


def _continues(work: Mapping[str, Any], begun: Mapping[str, Any] | None) -> bool:
    """Return whether repeated work is the rest of what an interrupted build had begun."""
    if begun is None or begun["settings"] != work["settings"]:
        return False
    return bool(work["objects"] <= begun["objects"])
