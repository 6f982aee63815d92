"""Changed settings and versions: what each redoes, and when a build refuses to start."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.errors import BadInput
from core.quantities import amount
from pipelines.building.estimates.cost import StageCost

__all__ = ["Change", "Changes"]

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

    def to_dict(self) -> list[dict[str, Any]]:
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
        """
        open_changes = [item for item in self.items if item.again and not _is_in(item, accepted)]
        stages = frozenset[str]().union(*(item.again for item in open_changes))
        costs = [self.again[name] for name in sorted(stages)]
        hours = sum(cost.core_hours for cost in costs), sum(cost.gpu_hours for cost in costs)
        if max(hours) <= _HOURS:
            return
        names = ", ".join(item.name for item in open_changes)
        raise BadInput(
            f"{_hours(costs)} of work would be done again, because settings or versions differ "
            f"from those of the last build: {'; '.join(map(self._line, open_changes))}; give the "
            f"former values, or accept the changes: --accept-changes '[{names}]'"
        )

    def _costs(self, change: Change) -> list[StageCost]:
        again = [self.again[name] for name in sorted(change.again)]
        return again + [self.new[name] for name in sorted(change.new)]

    def _line(self, change: Change) -> str:
        line = f"{change.name} {_text(change.before)} → {_text(change.after)}"
        details = []
        for names, costs, word in ((change.again, self.again, "again"), (change.new, self.new, "")):
            count = max((round(costs[name].objects) for name in names), default=0)
            if count:
                done = " ".join(filter(None, (_objects(count), word)))
                details.append(f"{done} ({', '.join(n for n in costs if n in names)})")
        if details:
            details.append(_hours(self._costs(change)))
        if change.num_dropped:
            details.append(f"{_objects(change.num_dropped)} newly dropped")
        if change.num_undropped:
            details.append(f"{_objects(change.num_undropped)} no longer dropped")
        return f"{line}: {', '.join(details)}" if details else line


def _is_in(change: Change, accepted: Collection[str]) -> bool:
    parts = change.name.split(".")
    return any(".".join(parts[:end]) in accepted for end in range(1, len(parts) + 1))


def _objects(count: int) -> str:
    return f"{count:,} object" if count == 1 else f"{count:,} objects"


def _hours(costs: Sequence[StageCost]) -> str:
    gpu_hours = sum(cost.gpu_hours for cost in costs)
    text = f"{amount(sum(cost.core_hours for cost in costs))} core-hours"
    return f"{text}, {amount(gpu_hours)} GPU-hours" if gpu_hours else text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
