"""Views of every rig show two bodies as their equations say, at full resolution."""

import pytest

from render.process import BlenderProcess
from render.render_config import RenderConfig
from render.rigs import RIGS, Rig
from tests.support.rig_pictures import BODIES, rig_problems

CONFIG = RenderConfig(resolution=512, samples=1, denoise=False)
"""One sample per pixel tells the area of a silhouette of this size."""


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("rig", RIGS.values(), ids=RIGS)
def test_views_of_a_rig_show_a_body_as_it_is(
    rig: Rig, name: str, blender: BlenderProcess, request: pytest.FixtureRequest
):
    glb = request.getfixturevalue(name)
    problems = rig_problems(blender, rig, name, glb, CONFIG)
    assert not problems, "\n".join(problems)
