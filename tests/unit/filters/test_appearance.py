"""The texture filters keep an object if visible base-colour maps cover enough of it."""

import pytest

from filters.chain import FilterConfig
from filters.inspect_glb import inspect_glb
from filters.verdict import PASSED, Verdict
from tests.support.facts import evaluate_filters, kept_facts
from tests.support.small_glbs import pack_glb, picture, textured_square


def verdict_of(name: str, inspect: dict, config: FilterConfig | None = None) -> Verdict:
    verdicts = evaluate_filters(kept_facts(inspect=inspect), config or FilterConfig())
    return next(verdict for verdict in verdicts if verdict.filter == name)


def textured(inspect: dict, config: FilterConfig | None = None) -> Verdict:
    return verdict_of("textured", inspect, config)


def maps(*states: tuple[str, int]) -> dict:
    colour_maps = [{"state": state, "triangles": triangles} for state, triangles in states]
    return {"num_triangles": 100, "base_colour_maps": colour_maps}


@pytest.mark.parametrize(
    ("inspection", "reason"),
    [
        (maps(), "no_texture_map"),
        (maps(("flat", 100)), "flat_texture"),
        (maps(("unreadable", 100)), "unreadable_texture"),
        (maps(("no_uv", 50), ("flat", 50)), "unreadable_texture"),
        (maps(("not_shown", 100)), "unreadable_texture"),
    ],
)
def test_an_object_without_a_detailed_texture_is_dropped(inspection: dict, reason: str) -> None:
    verdict = textured(inspection)
    assert (verdict.keep, verdict.reason, verdict.measured) == (False, reason, 0)


@pytest.mark.parametrize(
    "inspection", [maps(("detailed", 1)), maps(("flat", 60), ("detailed", 40))]
)
def test_an_object_with_a_detailed_texture_is_kept(inspection: dict) -> None:
    verdict = textured(inspection)
    assert (verdict.keep, verdict.reason) == (True, PASSED)


def test_the_minimum_share_is_a_setting() -> None:
    config = FilterConfig.load({"textured": {"min_triangle_share": 0.5}})
    assert textured(maps(("detailed", 50)), config).keep
    dropped = textured(maps(("detailed", 49)), config)
    assert (dropped.keep, dropped.reason) == (False, "little_texture")
    assert (dropped.measured, dropped.limit) == (0.49, 0.5)


@pytest.mark.parametrize(
    ("image", "keep"), [(picture(), True), (picture(flat=True), False), (b"no image", False)]
)
def test_from_a_file_to_a_verdict(image: bytes, keep: bool) -> None:
    assert textured(inspect_glb(pack_glb(*textured_square(image))).to_dict()).keep is keep


@pytest.mark.parametrize(
    ("inspection", "share"),
    [
        (maps(("detailed", 100)), 0),
        (maps(("detailed", 60), ("missing", 40)), 0.4),
        (maps(("unreadable", 100)), 1),
        (maps(("flat", 100)), 0),
        (maps(), 0),
    ],
)
def test_missing_textures_have_their_own_filter(inspection: dict, share: float) -> None:
    verdict = verdict_of("missing_texture", inspection)
    assert (verdict.keep, verdict.measured) == (share == 0, share)
    assert verdict.reason == (PASSED if share == 0 else "missing_texture")
    config = FilterConfig.load({"missing_texture": {"max_triangle_share": 0.4}})
    assert verdict_of("missing_texture", inspection, config).keep is (share <= 0.4)
