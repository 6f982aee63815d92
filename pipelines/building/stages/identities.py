"""The identities of results: they decide whether a result is valid, and name its files.

A result is valid while three things stay the same: the input (the file's content), the digest of
the stage's settings and versions, and, for stages that depend on the rig, the part of the rig that
they depend on.
"""

from functools import cache
from typing import Any

from core.config import digest
from dataset.catalog.event_log import Event
from pipelines.building.build_config import BuildConfig
from pipelines.building.stages.identity_keys import LIMIT_KEYS, identity_of
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.stage import RigScope, Stage
from render.rigs import get_rig

__all__ = ["Identities"]


class Identities:
    """The identities of all stages' results under one build configuration."""

    def __init__(self, config: BuildConfig) -> None:
        self._config = config
        self._rig = get_rig(config.rig)
        self._rig_columns = {
            RigScope.NOTHING: "",
            RigScope.FRAME: self._rig.normalise,
            RigScope.CAMERAS: config.rig,
        }
        self.settings = cache(self._settings)
        """stage -> digest of its versions and settings; empty if the result depends on none."""
        self.limits_of = cache(self._limits_of)
        """stage -> digest of the limits that may be the cause of a failure; empty without any."""

    def _limits_of(self, stage: Stage) -> str:
        keys = LIMIT_KEYS if stage.uses_blender else stage.limit_keys
        return digest(identity_of(self._config, keys)) if keys else ""

    def _settings(self, stage: Stage) -> str:
        identity = stage.identity_of(self._config, self._rig)
        return "" if identity is None else digest(identity)

    def rig(self, stage: Stage) -> str:
        """Return the value of the catalog's column `rig` in a stage's events."""
        return self._rig_columns[stage.rig]

    def key(self, stage: Stage, state: ObjectState) -> str:
        """Return the identity of a stage's result: equal keys mean the same bytes."""
        return self.key_of(stage, state.asset_id, self.content(stage, state))

    def key_of(self, stage: Stage, asset_id: str, content: str) -> str:
        """Return the identity of a stage's result for an input of this version."""
        identity = [content, self.settings(stage)]
        # The cameras depend on the asset id: two objects with equal files have different views.
        uses_cameras = stage.rig is RigScope.CAMERAS
        return digest([asset_id, *identity] if uses_cameras else identity)

    def content(self, stage: Stage, state: ObjectState) -> str:
        """Return the version of a stage's input, such as the file's sha256; empty if unknown."""
        return state.get(stage.input_version) or ""

    def event(self, stage: Stage, state: ObjectState, **fields: Any) -> Event:
        """Return a new event of an object and stage, with its identity under the configuration."""
        data = dict(fields.pop("data", {}))
        limits = self.limits_of(stage)
        if limits and fields.get("status") == "failed":
            data["limits"] = limits
        return Event(
            asset_id=state.asset_id,
            stage=stage.name,
            rig=self.rig(stage),
            content=self.content(stage, state),
            settings=self.settings(stage),
            data=data,
            **fields,
        )
