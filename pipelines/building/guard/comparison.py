"""The comparison of a plan with the last build: which results each changed setting invalidates."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from core.config import merge, nested, without
from dataset.columns import Columns
from pipelines.building.build_config import BuildConfig
from pipelines.building.decide import Decider, Decisions
from pipelines.building.estimates.cost import Cost, StageCost
from pipelines.building.guard.changes import Change, Changes, value_text
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
        former: Sequence[BuildConfig] = (),
        columns_before: Callable[[], Columns] | None = None,
    ) -> None:
        """Compare a plan under `config` with `remembered`, what its rig starts from, if anything.

        `rows` are the objects that need a stage, and `estimate` is the cost of all their work.
        `former` are the settings of all builds that are known. `columns_before` returns the objects
        with their former listing, if that differs: only filters are evaluated on them.
        """
        self._former = former
        self._columns_before = columns_before
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
        """The repeated work that a build of this plan begins (`Remembered.accepted`).

        It includes what an interrupted build had begun, also beyond a limit of this one.
        """
        counts = {
            stage: max(self._num_again(stage), self._num_begun(stage)) for stage in self._stages
        }
        return self._entries(counts)

    @cached_property
    def accepted_later(self) -> dict[str, Any]:
        """What an interrupted build had begun, and a build of this plan does not reach."""
        counts = {
            stage: max(0, self._num_begun(stage) - self._num_again(stage)) for stage in self._stages
        }
        return self._entries(counts)

    def _entries(self, counts: Mapping[Stage, int]) -> dict[str, Any]:
        return {
            stage.name: {"settings": self._digest(stage), "objects": count}
            for stage, count in counts.items()
            if count
        }

    def _num_begun(self, stage: Stage) -> int:
        """Return the number of objects that an interrupted build had begun and that are left.

        That build was told to make them again, or they cost little.
        """
        begun = {} if self._remembered is None else self._remembered.accepted
        work = begun.get(stage.name)
        if work is None or work["settings"] != self._digest(stage):
            return 0
        return min(int(work["objects"]), int(self._invalid[stage.name].sum()))

    def _num_again(self, stage: Stage) -> int:
        """Return the number of objects of the plan that make their result again."""
        return int(self._is_again(stage).sum())

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
        """Return the results made again, by stage, without the rest of interrupted work."""
        counts = {stage: self._num_again(stage) for stage in self._stages}
        return {
            stage.name: self._cost(stage, count)
            for stage, count in counts.items()
            if count > self._num_begun(stage)
        }

    def _cost(self, stage: Stage, count: int) -> StageCost:
        """Return the expected cost of a stage for this many objects of the plan."""
        mean = self._estimate.stages.get(stage.name)
        if mean is None or not mean.objects:
            return StageCost(objects=count)
        share = count / mean.objects
        hours = {"core_hours": mean.core_hours * share, "gpu_hours": mean.gpu_hours * share}
        return StageCost(objects=count, **hours)

    @cached_property
    def _invalid(self) -> dict[str, Bool[np.ndarray, "n"]]:
        """Per stage, a mask of the objects with a result that a build makes again.

        Their file is the same; the settings or versions of the stage differ. Objects that the plan
        does not select are included.
        """
        masks = {}
        for index, stage in enumerate(self._stages):
            columns, events = self._columns, stage.events
            needs = (self._decisions.stage >= 0) & (self._decisions.stage <= index)
            has_result = columns.one_of(events.status, {"ok", "failed"})
            same_file = columns.same(events.content, stage.input_version)
            same_settings = columns.one_of(events.settings, {self._digest(stage)})
            masks[stage.name] = needs & has_result & same_file & ~same_settings
        return masks

    def _is_again(self, stage: Stage) -> Bool[np.ndarray, "n"]:
        """Return a mask of the objects of the plan that have a result of the stage to be remade."""
        return self._is_selected & self._invalid[stage.name]

    @cached_property
    def _is_selected(self) -> Bool[np.ndarray, "n"]:
        is_selected = np.zeros(len(self._columns), dtype=bool)
        is_selected[self._rows] = True
        return is_selected

    def _is_new(self, stage: Stage) -> Bool[np.ndarray, "n"]:
        """Return a mask of the objects that pass the stage for the first time."""
        valid = self._decider.valid(stage, self._columns)
        reaches = self._is_selected & (self._decisions.stage <= self._stages.index(stage))
        return reaches & ~valid & ~self._is_again(stage)

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

        Everything else is as in the last build, also the listing: other changes may make the
        measurements invalid, and what changed data drop is listed with the data.
        """
        config = _with(self._before, change.name, change.after)
        was = self._decisions_before.where("dropped")
        now = Decider(config).decide_all(self._decisions_before.columns).where("dropped")
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
        columns = self._columns if self._columns_before is None else self._columns_before()
        return Decider(self._before).decide_all(columns)

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
        """Return the changes to which no remembered setting and no recorded version leads.

        Such results come from a build before the last one, such as one that a build with `--limit`
        followed, from another rig, or from a version that did not record its versions.
        """
        named: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        values: dict[tuple[str, str], tuple[Any, Any]] = {}
        for stage in self._stages:
            if stage.name in stages:
                for name, *pair in self._causes(stage, remembered):
                    key = name, value_text(pair[0])
                    values[key] = pair[0], pair[1]
                    named[key].add(stage.name)
        return [
            Change(name=name, before=before, after=after, again=frozenset(named[name, key]))
            for (name, key), (before, after) in values.items()
        ]

    def _causes(self, stage: Stage, remembered: Remembered) -> Iterator[tuple[str, Any, Any]]:
        """Yield name, former and present value of what makes results of a stage invalid.

        The settings of former builds explain results with their digest.
        """
        rest = self._is_again(stage)
        for former in self._former:
            config = former.model_copy(update={"rig": self._config.rig})
            digest = Identities(config).settings(stage)
            explained = rest & self._columns.one_of(stage.events.settings, {digest})
            if explained.any():
                rest = rest & ~explained
                for path, (before, after) in differences(config, self._config).items():
                    reverted = Identities(_with(self._config, path, before))
                    if reverted.settings(stage) != self._digest(stage):
                        yield path, before, after
        if rest.any():
            yield self._unknown_cause(stage, remembered)

    def _unknown_cause(self, stage: Stage, remembered: Remembered) -> tuple[str, Any, Any]:
        """Return the change of results of which no build has a record."""
        name, before = stage.name, "other settings"
        if remembered.config.rig != self._config.rig:
            before = "settings that are not recorded"
        elif remembered.versions is None:
            before = "an earlier version"
            name = RENDERER if RENDERER in versions_of(stage, self._config) else stage.name
        return name, before, present_versions(self._config)[name]


def _with(config: BuildConfig, path: str, value: Any) -> BuildConfig:
    """Return the configuration with another value of one setting."""
    values, _ = without(config.dump(), path.split("."))
    return BuildConfig.load(merge(values, nested(path, value)))
