"""The versions of the code that results depend on, as a dataset records them for each rig."""

from collections.abc import Mapping

from pipelines.building.build_config import BuildConfig
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.stage import RigScope, Stage
from render.render_config import RENDERER_VERSION
from render.rigs import get_rig

__all__ = ["RENDERER", "RIG", "present_versions", "versions_of"]

RENDERER, RIG = "renderer", "rig"


def present_versions(config: BuildConfig) -> dict[str, str]:
    """Return the versions of the renderer, of the rig, and of each stage by the stage's name."""
    rig = get_rig(config.rig)
    stages = {stage.name: f"{stage.name}/{stage.version}" for stage in STAGES}
    return {RENDERER: RENDERER_VERSION, RIG: f"{rig.name}/{rig.version}", **stages}


def versions_of(stage: Stage, config: BuildConfig) -> Mapping[str, str]:
    """Return those of the present versions that a stage's results depend on."""
    present = present_versions(config)
    identity = stage.identity_of(config, get_rig(config.rig))
    if identity is None:
        return {}
    names = [stage.name]
    if RENDERER_VERSION in identity:
        names.append(RENDERER)
    if stage.rig is RigScope.CAMERAS:
        names.append(RIG)
    return {name: present[name] for name in names}
