"""Pictures of few bytes and much work: the confined inspection ends within its limits."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.confined.confined_process import ConfinedFailure, ConfinedProcess
from filters.inspect_glb import InspectLimits, inspect_confined, inspect_glb
from tests.support.picture_bombs import LARGE_PICTURES, jpeg_of_many_scans
from tests.support.small_glbs import pack_glb, textured_square

SIDE = 512


@pytest.fixture(scope="module")
def process() -> Iterator[ConfinedProcess]:
    with ConfinedProcess("inspect") as process:
        yield process


def inspected(
    process: ConfinedProcess, path: Path, image: bytes, seconds: float = 30, **limits: int
) -> dict[str, Any]:
    path.write_bytes(pack_glb(*textured_square(image)))
    return inspect_confined(
        process, path, InspectLimits(**limits), seconds=seconds, max_bytes=1 << 30
    )


@pytest.mark.parametrize("kind", LARGE_PICTURES)
def test_a_picture_has_as_many_pixels_as_the_limit_and_no_more(
    process: ConfinedProcess, tmp_path: Path, kind: str
) -> None:
    path, image = tmp_path / "bomb.glb", LARGE_PICTURES[kind](SIDE)
    found = inspected(process, path, image, max_image_pixels=SIDE**2)
    assert found == inspect_glb(path).to_dict()
    (texture,) = found["base_colour_maps"]
    assert texture["width"] == SIDE
    with pytest.raises(ConfinedFailure, match=f"{SIDE} x {SIDE} pixels") as caught:
        inspected(process, path, image, max_image_pixels=SIDE**2 - 1)
    assert caught.value.kind == "too_large"


def test_scans_without_end_take_no_longer_than_the_limit(
    process: ConfinedProcess, tmp_path: Path
) -> None:
    path, image = tmp_path / "bomb.glb", jpeg_of_many_scans(8192, 100_000)
    with pytest.raises(ConfinedFailure, match=r"inspect took more than 0\.5 s") as caught:
        inspected(process, path, image, seconds=0.5)
    assert caught.value.kind == "timeout"
    assert inspected(process, path, jpeg_of_many_scans(16, 1))["num_triangles"] == 2
