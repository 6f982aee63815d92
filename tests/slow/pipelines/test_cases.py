"""A folder of small inputs, each with a README: a build accounts for every one of them."""

import os
from pathlib import Path

import pytest

from tests.support.lrm import run_lrm
from tests.support.paths import REPOSITORY

UNFILTERED = [
    word
    for name in (
        "caption",
        "textured",
        "missing-texture",
        "multi-object",
        "occupancy",
        "degenerate",
    )
    for word in (f"--filters.{name}.enabled", "false")
]


@pytest.fixture
def cases() -> Path:
    folder = Path(os.environ.get("LRM_TEST_CASES", REPOSITORY.parent / "shared" / "cases"))
    if not list(folder.glob("*/README")):
        pytest.skip(f"no cases with a README at {folder}; set LRM_TEST_CASES")
    return folder


def test_every_case_is_kept_or_fails_with_a_reason(cases: Path, tmp_path: Path):
    """Files that are no models are no listed objects; those that are no GLB fail by name."""
    # Fewer samples leave the opacity of many layers too noisy for the check of renders.
    small = ["--render.resolution", "32", "--render.samples", "8", "--render.min-samples", "8"]
    words = ["--source", cases, "--root", tmp_path / "root", "--address", "none", "--json"]
    status = run_lrm("build", *words, *UNFILTERED, *small).json()
    assert status["listed"] == len(list(cases.rglob("*.glb")))
    assert status["listed"] == status["kept"] + sum(status["failed"].values())
    assert set(status["failed"]) <= {"malformed", "empty", "refused", "unsupported_extension"}
