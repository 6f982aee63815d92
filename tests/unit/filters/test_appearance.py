"""An object stays when a base-colour map that the render shows covers part of it."""

import pytest

from filters.chain import FilterConfig
from filters.inspect_glb import inspect_glb
from filters.verdict import PASSED, Verdict
from tests.support.facts import judge, kept_facts
from tests.support.glbs import pack, picture, textured_square


def judged(name: str, inspect: dict, config: FilterConfig | None = None) -> Verdict:
    verdicts = judge(kept_facts(inspect=inspect), config or FilterConfig())
    return next(found for found in verdicts if found.filter == name)


def textured(inspect: dict, config: FilterConfig | None = None) -> Verdict:
    return judged("textured", inspect, config)


def maps(*states: tuple[str, int]) -> dict:
    covers = [{"state": state, "triangles": triangles} for state, triangles in states]
    return {"num_triangles": 100, "base_colour_maps": covers}


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (maps(), "no_texture_map"),
        (maps(("flat", 100)), "flat_texture"),
        (maps(("unreadable", 100)), "unreadable_texture"),
        (maps(("no_uv", 50), ("flat", 50)), "unreadable_texture"),
        (maps(("not_shown", 100)), "unreadable_texture"),
    ],
)
def test_dropped(found: dict, reason: str) -> None:
    verdict = textured(found)
    assert (verdict.keep, verdict.reason, verdict.measured) == (False, reason, 0)


@pytest.mark.parametrize("found", [maps(("detailed", 1)), maps(("flat", 60), ("detailed", 40))])
def test_kept(found: dict) -> None:
    verdict = textured(found)
    assert (verdict.keep, verdict.reason) == (True, PASSED)


def test_the_least_share_is_a_setting() -> None:
    config = FilterConfig.load({"textured": {"min_triangle_share": 0.5}})
    assert textured(maps(("detailed", 50)), config).keep
    dropped = textured(maps(("detailed", 49)), config)
    assert (dropped.keep, dropped.reason) == (False, "little_texture")
    assert (dropped.measured, dropped.limit) == (0.49, 0.5)


@pytest.mark.parametrize(
    ("image", "keep"), [(picture(), True), (picture(flat=True), False), (b"no image", False)]
)
def test_from_a_file_to_a_verdict(image: bytes, keep: bool) -> None:
    assert textured(inspect_glb(pack(*textured_square(image))).to_dict()).keep is keep


@pytest.mark.parametrize(
    ("found", "share"),
    [
        (maps(("detailed", 100)), 0),
        (maps(("detailed", 60), ("missing", 40)), 0.4),
        (maps(("unreadable", 100)), 1),
        (maps(("flat", 100)), 0),
        (maps(), 0),
    ],
)
def test_missing_textures_are_not_untextured_objects(found: dict, share: float) -> None:
    verdict = judged("missing_texture", found)
    assert (verdict.keep, verdict.measured) == (share == 0, share)
    assert verdict.reason == (PASSED if share == 0 else "missing_texture")
    config = FilterConfig.load({"missing_texture": {"max_triangle_share": 0.4}})
    assert judged("missing_texture", found, config).keep is (share <= 0.4)
