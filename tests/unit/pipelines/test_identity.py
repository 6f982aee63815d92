"""Identities come from frozen names of settings, so that existing renders stay valid."""

import dataclasses

import pytest

from core.config import Config, digest
from pipelines.building.build_config import BuildConfig
from pipelines.building.stages.fetch import SHA256
from pipelines.building.stages.identities import Identities
from pipelines.building.stages.identity_keys import (
    INSPECT_KEYS,
    LIMIT_KEYS,
    RENDER_KEYS,
    SCENE_KEYS,
    SURFACE_KEYS,
    IdentityKey,
    identity_of,
)
from pipelines.building.stages.queues import RENDER_QUEUE
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.render import RENDER
from pipelines.building.stages.stage import RigScope, Stage

LRM32 = {
    "fetch": "",
    "inspect": "b6664caa92344f18",
    "measure": "e0111c81f2192273",
    "render": "345a2ae6410fe5ce",
    "geometry": "2b0cdb838f3ed284",
    "pack": "345a2ae6410fe5ce",
}
"""Identities of the default configuration. Another value renders every dataset again, so change
one only together with a version (RENDERER_VERSION, INSPECT_VERSION, ...)."""


def build(**values: object) -> BuildConfig:
    return BuildConfig.load({"source": "s", "root": "r", **values})


def settings(**values: object) -> dict[str, str]:
    identities = Identities(build(**values))
    return {stage.name: identities.settings(stage) for stage in STAGES}


def test_identities_are_frozen():
    assert settings() == LRM32
    other = settings(rig="zero123plus", render={"resolution": 96, "samples": 2})
    assert other["measure"] == "4dd019cb38f30086"
    assert settings(render={"resolution": 96, "samples": 2})["render"] == "0a0709e3691f6f85"
    assert other["geometry"] == "67371d546828682d"
    assert Identities(build()).limits_of(RENDER) == "2d8b9944a9916b96"


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("render", (*RENDER_KEYS, *SCENE_KEYS)),
        ("inspect", INSPECT_KEYS),
        ("surface", SURFACE_KEYS),
        ("blender", LIMIT_KEYS),
    ],
)
def test_every_setting_of_a_section_is_a_key(section, keys):
    """A new setting needs a key, with its default as `omitted_at`."""
    paths = {key.path for key in keys if key.path.startswith(f"{section}.")}
    assert paths == {f"{section}.{name}" for name in build().dump()[section]}


def test_limits_of_the_file_are_limits_of_the_blender_child():
    """They keep their names from when they were settings of the Blender child."""
    moved = {key.name: key.path for key in LIMIT_KEYS if not key.path.startswith("blender.")}
    assert moved == {
        "max_nodes": "inspect.max_nodes",
        "max_triangles": "inspect.max_triangles",
        "max_texture_pixels": "inspect.max_total_pixels",
    }


class Before(Config):
    resolution: int = 512
    samples: int = 12


class Pixels(Config):
    side: int = 512


class After(Config):
    """The same settings after one was moved and renamed, and another one was added."""

    pixels: Pixels = Pixels()
    samples: int = 12
    exposure: float = 0.0


BEFORE = (IdentityKey("resolution", "resolution"), IdentityKey("samples", "samples"))
AFTER = (
    IdentityKey("resolution", "pixels.side"),
    IdentityKey("samples", "samples"),
    IdentityKey("exposure", "exposure", omitted_at=0.0),
)


def test_a_moved_setting_and_a_new_one_at_its_default_change_no_identity():
    assert digest(identity_of(After(), AFTER)) == digest(identity_of(Before(), BEFORE))
    moved = After.load({"pixels": {"side": 96}})
    assert digest(identity_of(moved, AFTER)) == digest(
        identity_of(Before.load({"resolution": 96}), BEFORE)
    )


def test_a_new_setting_at_another_value_changes_the_identity():
    exposed = identity_of(After.load({"exposure": 1.0}), AFTER)
    assert exposed == {"resolution": 512, "samples": 12, "exposure": 1.0}


class Sdf(Config):
    size: int = 64


ADDED = Stage(
    name="sdf",
    inputs=("fetch",),
    input_version=SHA256,
    queue=RENDER_QUEUE,
    settings=Sdf,
    run=lambda state, context: {},
)
OF_FRAME = dataclasses.replace(ADDED, rig=RigScope.FRAME)
OF_CAMERAS = dataclasses.replace(ADDED, rig=RigScope.CAMERAS)


def added(stage: Stage, rig: str = "lrm32", **own: int) -> str:
    return Identities(build(rig=rig, stages={"sdf": own})).settings(stage)


def test_an_added_stage_is_repeated_only_for_its_version_and_settings():
    """These digests are frozen, too: another value repeats every added stage of every dataset."""
    assert added(ADDED) == "bdc9a8a6d05809aa"
    assert added(OF_FRAME) == "539aed89a7ebe8d9"
    assert added(OF_CAMERAS) == "d89e71408a8c8281"
    assert added(ADDED, size=32) == "43708ffecb47d6d7"
    assert added(ADDED, size=64) == added(ADDED)  # a default is not in the digest
    assert added(dataclasses.replace(ADDED, version=2)) != added(ADDED)
    assert added(dataclasses.replace(ADDED, uses_blender=True)) != added(ADDED)


def test_an_added_stage_depends_on_as_much_of_the_rig_as_it_declares():
    assert added(ADDED, rig="zero123plus") == added(ADDED)
    assert added(OF_FRAME, rig="orbit21") == added(OF_FRAME)
    assert added(OF_FRAME, rig="zero123plus") != added(OF_FRAME)
    assert added(OF_CAMERAS, rig="orbit21") != added(OF_CAMERAS)
