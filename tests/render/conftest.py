"""One Blender child for all tests of a module, and the bodies that they look at."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from render.process import BlenderProcess
from render.settings import BlenderLimits
from tests.render.bodies import letter_block, write_boxes, write_sphere


@pytest.fixture(scope="module")
def blender() -> Iterator[BlenderProcess]:
    """A Blender child with ordinary limits."""
    with BlenderProcess(BlenderLimits(threads=2)) as process:
        yield process


@pytest.fixture(scope="session")
def block(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The block with the letter: its longest side is 2, so that normalising leaves it alone."""
    return write_boxes(tmp_path_factory.mktemp("bodies") / "block.glb", letter_block())


@pytest.fixture(scope="session")
def sphere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sphere of radius 1 around the origin."""
    return write_sphere(tmp_path_factory.mktemp("bodies") / "sphere.glb")
