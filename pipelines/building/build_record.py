"""The record of the last build in build.json, and the settings that the dataset remembers."""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from core.errors import BadInput
from core.storage import Storage
from dataset.root import check_root, read_build, write_build
from pipelines.building.build_config import BuildConfig
from pipelines.building.estimates.spending import estimate_record
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
        accepted: Mapping[str, Any],
    ) -> None:
        """`memory` is that of the dataset before the build, `accepted` the work done again."""
        self._root = root
        self._config = config
        self._rigs = memory.rigs
        self._remembered = Remembered(
            config=config, versions=present_versions(config), accepted=accepted
        )
        self._values: dict[str, Any] = {}

    def start(self, plan: Plan, source_revision: str) -> None:
        """Write the record of a build that starts now. Raises BadInput if the root cannot be."""
        self._values = {
            "config": self._config.dump(),
            "captions_revision": plan.captions_revision,
            "source_revision": source_revision,
            **_estimate_of(plan, self._config, self._root),
        }
        self._write(self._remembered)

    def end(self) -> None:
        """Record that all work is done."""
        self._values["ended"] = datetime.now(UTC).isoformat()
        self._write(replace(self._remembered, accepted={}))

    def _write(self, remembered: Remembered) -> None:
        rigs = Memory(rigs={**self._rigs, self._config.rig: remembered}).entries()
        write_build(self._root, self._values | {"rigs": rigs})


def store_filters(root: Storage, config: BuildConfig, memory: Memory) -> None:
    """Make the filters of `config` settings of the dataset and of its rig; nothing is built."""
    build = read_build(root)
    last = BuildConfig.load(build["config"], where=f"{root.uri}: build.json")
    remembered = replace(memory.rigs[config.rig], config=config)
    # The other settings of the machine or of one call stay those of the last build.
    changed = {name: getattr(config, name) for name in (*REMEMBERED, "rig", "root")}
    rigs = Memory(rigs={**memory.rigs, config.rig: remembered}).entries()
    config = last.model_copy(update=changed)
    write_build(root, build | {"config": config.dump(), "rigs": rigs})


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
