"""Views of every rig show two bodies as computed from their equations, at full resolution."""

import pytest

from render.process import BlenderProcess
from render.render_config import RenderConfig
from render.rigs import RIGS, Rig
from tests.support.rig_checks import BODIES, rig_problems

CONFIG = RenderConfig(resolution=512, samples=1, denoise=False)
"""At this size, one sample per pixel gives the area of a silhouette."""


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("rig", RIGS.values(), ids=RIGS)
def test_views_of_a_rig_agree_with_the_equations(
    rig: Rig, name: str, blender: BlenderProcess, request: pytest.FixtureRequest
):
    glb = request.getfixturevalue(name)
    problems = rig_problems(blender, rig, name, glb, CONFIG)
    assert not problems, "\n".join(problems)
