"""Changed settings and versions: what each redoes, and when a build refuses to start."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.choices import unknown_choice
from core.errors import BadInput
from core.options import leaves
from core.quantities import amount, counted
from pipelines.building.build_config import BuildConfig
from pipelines.building.estimates.cost import StageCost
from pipelines.building.guard.remembered import REMEMBERED
from pipelines.building.guard.result_versions import RENDERER, RIG
from pipelines.building.stages.registry import STAGES

__all__ = ["Change", "Changes", "change_text", "value_text"]

_HOURS = 10.0
"""Core-hours or GPU-hours of repeated work above which a build must be told to go on."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A setting, or a version, that differs from that of the last build."""

    name: str
    """The path of the setting; `renderer`, `rig` or the name of a stage for a version."""
    before: Any
    after: Any
    again: frozenset[str] = frozenset()
    """The stages with results that this change invalidates."""
    new: frozenset[str] = frozenset()
    """The stages that this change adds."""
    num_dropped: int = 0
    """Number of objects that a changed filter drops, and did not drop before."""
    num_undropped: int = 0
    """Number of objects that a changed filter dropped before, and drops no more."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """All changes since the last build, and the work that they cause."""

    items: Sequence[Change] = ()
    again: Mapping[str, StageCost] = field(default_factory=dict)
    """The results of the last build that are made again, by stage."""
    new: Mapping[str, StageCost] = field(default_factory=dict)
    """The results that are made for the first time, by stage, of stages that a change adds."""

    def to_dict(self, accepted: Collection[str]) -> dict[str, Any]:
        """Return plain values for JSON; `accepted` are those of `check`."""
        message = self.refusal(accepted)
        return {"items": self.entries(), "refused": bool(message), "message": message}

    def entries(self) -> list[dict[str, Any]]:
        """Return plain values for JSON, one mapping per change."""
        return [
            {
                "name": change.name,
                "before": change.before,
                "after": change.after,
                "again": {name: round(self.again[name].objects) for name in sorted(change.again)},
                "new": {name: round(self.new[name].objects) for name in sorted(change.new)},
                "core_hours": round(sum(cost.core_hours for cost in self._costs(change)), 4),
                "gpu_hours": round(sum(cost.gpu_hours for cost in self._costs(change)), 4),
                "dropped": change.num_dropped,
                "undropped": change.num_undropped,
            }
            for change in self.items
        ]

    def lines(self) -> list[str]:
        """Return a line per change: `render.resolution 128 → 512: 15 objects again`."""
        return [self._line(change) for change in self.items]

    def check(self, accepted: Collection[str]) -> None:
        """Raise BadInput if much work is done again for changes that are not accepted.

        `accepted` are names of changes; a section, such as `render`, includes all settings below.
        Also raises BadInput for the name of no setting and no version.
        """
        for name in accepted:
            if name not in _all_names():
                raise unknown_choice("change", name, [item.name for item in self.items])
        refusal = self.refusal(accepted)
        if refusal:
            raise BadInput(refusal)

    def refusal(self, accepted: Collection[str]) -> str:
        """Return one line if much work is done again for changes that are not accepted, else ""."""
        open_changes = [item for item in self.items if item.again and not _is_in(item, accepted)]
        stages = frozenset[str]().union(*(item.again for item in open_changes))
        costs = [self.again[name] for name in sorted(stages)]
        hours = sum(cost.core_hours for cost in costs), sum(cost.gpu_hours for cost in costs)
        if max(hours) <= _HOURS:
            return ""
        names = ", ".join(item.name for item in open_changes)
        return (
            f"{_hours(costs)} of work would be done again, because settings or versions differ "
            f"from those of the last build: {'; '.join(map(self._line, open_changes))}; give the "
            f"former values, or accept the changes: --accept-changes '[{names}]'"
        )

    def _costs(self, change: Change) -> list[StageCost]:
        again = [self.again[name] for name in sorted(change.again)]
        return again + [self.new[name] for name in sorted(change.new)]

    def _line(self, change: Change) -> str:
        line = change_text(change.name, change.before, change.after)
        details = []
        for names, costs, word in ((change.again, self.again, "again"), (change.new, self.new, "")):
            count = max((round(costs[name].objects) for name in names), default=0)
            if count:
                done = " ".join(filter(None, (counted(count, "object"), word)))
                details.append(f"{done} ({', '.join(n for n in costs if n in names)})")
        if details:
            details.append(_hours(self._costs(change)))
        if change.num_dropped:
            details.append(f"{counted(change.num_dropped, 'object')} newly dropped")
        if change.num_undropped:
            details.append(f"{counted(change.num_undropped, 'object')} no longer dropped")
        return f"{line}: {', '.join(details)}" if details else line


def _is_in(change: Change, accepted: Collection[str]) -> bool:
    parts = change.name.split(".")
    return any(".".join(parts[:end]) in accepted for end in range(1, len(parts) + 1))


def _all_names() -> set[str]:
    """Return the name of every setting, section and version that can be a change."""
    names = {RENDERER, RIG, *(stage.name for stage in STAGES)}
    for path, _ in leaves(BuildConfig):
        parts = path.split(".")
        if parts[0] in REMEMBERED:
            names |= {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
    return names


def _hours(costs: Sequence[StageCost]) -> str:
    gpu_hours = sum(cost.gpu_hours for cost in costs)
    text = f"{amount(sum(cost.core_hours for cost in costs))} core-hours"
    return f"{text}, {amount(gpu_hours)} GPU-hours" if gpu_hours else text


def change_text(name: str, before: Any, after: Any) -> str:
    """Return a change in a few words: `render.resolution 64 → 128`."""
    return f"{name} {value_text(before)} → {value_text(after)}"


def value_text(value: Any) -> str:
    """Return the value of a setting as text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
