"""Pictures at the default limit of 8192 x 8192 pixels: the memory of the worker stays flat."""

import resource
from pathlib import Path

import pytest

from core.confined.confined_process import ConfinedFailure, ConfinedProcess
from filters.inspect_glb import InspectLimits, inspect_confined
from tests.support.gltf_builder import GltfBuilder
from tests.support.picture_bombs import LARGE_PICTURES, jpeg_of_many_scans, large_png
from tests.support.small_glbs import pack_glb, pack_scene, textured_square

SIDE = 8192
CHILD_BYTES = 1536 << 20
"""Most resident memory that a picture of 8192 x 8192 pixels takes in the child, and some more."""


def inspect(path: Path, seconds: float = 60) -> dict:
    with ConfinedProcess("inspect") as process:
        return inspect_confined(
            process, path, InspectLimits(), seconds=seconds, max_bytes=CHILD_BYTES
        )


def peak() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.parametrize("kind", LARGE_PICTURES)
def test_a_picture_at_the_limit(tmp_path: Path, kind: str) -> None:
    (tmp_path / "bomb.glb").write_bytes(pack_glb(*textured_square(LARGE_PICTURES[kind](SIDE))))
    before = peak()
    (texture,) = inspect(tmp_path / "bomb.glb")["base_colour_maps"]
    assert (texture["width"], texture["state"] in ("flat", "detailed", "unreadable")) == (
        SIDE,
        True,
    )
    assert peak() - before < 50 << 20


def test_many_pictures_at_the_limit(tmp_path: Path) -> None:
    """Four have as many pixels as all pictures may have together; five are refused."""
    builder, image = GltfBuilder(), large_png(SIDE)
    before = peak()
    for count in range(1, 6):
        builder.node(mesh=builder.quad(builder.material(texture=builder.texture(image))))
        if count > 3:
            (tmp_path / f"{count}.glb").write_bytes(pack_scene(builder))
    maps = inspect(tmp_path / "4.glb")["base_colour_maps"]
    assert [item["state"] for item in maps] == ["flat"] * 4
    with pytest.raises(ConfinedFailure) as caught:
        inspect(tmp_path / "5.glb")
    assert caught.value.kind == "too_large"
    assert peak() - before < 50 << 20


def test_many_scans(tmp_path: Path) -> None:
    image = jpeg_of_many_scans(SIDE, 200_000)
    (tmp_path / "bomb.glb").write_bytes(pack_glb(*textured_square(image)))
    with pytest.raises(ConfinedFailure, match="took more than 3 s"):
        inspect(tmp_path / "bomb.glb", seconds=3)
