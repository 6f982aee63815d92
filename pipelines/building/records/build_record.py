"""The record of the last build in build.json, and the settings that the dataset remembers."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from core.errors import BadInput
from core.storage import Storage
from dataset.build_records import recorded
from dataset.root import check_root, read_build, write_build
from pipelines.building.build_config import BuildConfig
from pipelines.building.dataset_status import stored_config
from pipelines.building.estimates.spending import estimate_record
from pipelines.building.guard.changes import Changes
from pipelines.building.guard.comparison import Comparison
from pipelines.building.guard.listing_changes import ListingChanges
from pipelines.building.guard.remembered import REMEMBERED, Memory, Remembered
from pipelines.building.guard.result_versions import present_versions
from pipelines.building.plan import Plan

__all__ = ["BuildRecord", "store_filters"]


class BuildRecord:
    """The record of one build: written when it starts, completed when it ends."""

    def __init__(
        self,
        root: Storage,
        config: BuildConfig,
        memory: Memory,
        comparison: Comparison,
        accepted: Mapping[str, Any],
    ) -> None:
        """`memory` is that of the dataset before the build, `comparison` that of its plan.

        `accepted` are the `loss` and the `changes` that the user accepts, for the record.
        """
        self._accepted = accepted
        self._root = root
        self._config = config
        self._rigs = memory.rigs
        self._comparison = comparison
        self._remembered = Remembered(
            config=config, versions=present_versions(config), accepted=comparison.accepted
        )

    @contextlib.contextmanager
    def of(self, plan: Plan, source_revision: str, run: str) -> Iterator[dict[str, Any]]:
        """Record the start of the build, and its end when the block ends.

        `run` is the id of the build's events. The block adds the final states of the plan's objects
        as `objects`. Raises BadInput if the root cannot be written.
        """
        values = {
            "config": self._config.dump(),
            "captions_revision": plan.captions_revision,
            "source_revision": source_revision,
            **_estimate_of(plan, self._config, self._root),
        }
        self._write(values, self._remembered)
        stages = plan.decisions.stages
        details = self._details() | {
            "estimate": plan.estimate.to_dict(),
            "work": plan.work,
            "reserves": {stage.name: stage.reserves(self._config) for stage in stages},
            "changes": self._comparison.changes.entries(),
            "listing": plan.changes.counts(),
            "accepted": dict(self._accepted),
        }
        with recorded(self._root, "lrm build", details, run) as record:
            yield record
            values["ended"] = datetime.now(UTC).isoformat()
            # What it did not reach, such as beyond a limit, was accepted before and still is.
            later = self._comparison.accepted_later
            self._write(values, replace(self._remembered, accepted=later))

    def _details(self) -> dict[str, Any]:
        """Return the settings of the build, for its record."""
        entry = self._remembered.entry()
        of_call = {"rig": self._config.rig, "limit": self._config.limit}
        return of_call | {name: entry[name] for name in ("settings", "versions")}

    def _write(self, values: Mapping[str, Any], remembered: Remembered) -> None:
        rigs = Memory(rigs={**self._rigs, self._config.rig: remembered}).entries()
        write_build(self._root, {**values, "rigs": rigs})


def store_filters(
    root: Storage,
    config: BuildConfig,
    memory: Memory,
    changes: Changes,
    listing: ListingChanges,
) -> None:
    """Make the filters of `config` settings of the dataset and of its rig; nothing is built.

    `changes` and `listing` are what they change, for the record.
    """
    build = read_build(root)
    last = stored_config(root, build)
    before = memory.rigs[config.rig]
    remembered = replace(before, config=config)
    # The other settings of the machine or of one call stay those of the last build.
    changed = {name: getattr(config, name) for name in (*REMEMBERED, "rig", "root")}
    rigs = Memory(rigs={**memory.rigs, config.rig: remembered}).entries()
    entry = remembered.entry()
    details = {
        "rig": config.rig,
        "settings": entry["settings"],
        "versions": entry.get("versions"),
        "changes": changes.entries(),
        "listing": listing.counts(),
    }
    with recorded(root, "lrm build --filters-only", details):
        now = last.model_copy(update=changed)
        write_build(root, build | {"config": now.dump(), "rigs": rigs})


def _estimate_of(plan: Plan, config: BuildConfig, root: Storage) -> dict[str, Any]:
    """Return the estimate that `lrm status` compares the cost with.

    A build that resumes a stopped one keeps the estimate of the first start, and a build with
    nothing to do keeps that of the build before; any other gets its own.
    """
    last_build = read_build(root) if check_root(root) else {}
    resumes = "ended" not in last_build and _is_stored_as(config, last_build.get("config", {}))
    if "estimate" in last_build and (resumes or not plan.work):
        return {"estimate": last_build["estimate"]}
    return {"estimate": estimate_record(plan.estimate)}


def _is_stored_as(config: BuildConfig, values: dict[str, Any]) -> bool:
    """Return whether stored values, perhaps under old names, give the same configuration."""
    with contextlib.suppress(BadInput):
        return BuildConfig.load(values) == config
    return False
