"""Every view of every rig shows two bodies as computed from their equations.

At a quarter of the full resolution; tests/slow/render uses the full one.
"""

import pytest

from render.process import BlenderProcess
from render.render_config import RenderConfig
from render.rigs import RIGS, Rig
from tests.support.rig_checks import BODIES, rig_problems

CONFIG = RenderConfig(resolution=128, samples=4, min_samples=4, denoise=False)


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("rig", RIGS.values(), ids=RIGS)
def test_every_view_of_a_rig_agrees_with_the_equations(
    rig: Rig, name: str, blender: BlenderProcess, request: pytest.FixtureRequest
):
    problems = rig_problems(blender, rig, name, request.getfixturevalue(name), CONFIG)
    assert not problems, "\n".join(problems)
