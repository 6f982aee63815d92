"""The filters of occupancy, number of objects and thickness, from stored measurements."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.chain import FilterConfig
from filters.shape import MultiObjectConfig
from filters.thickness import thickness
from filters.verdict import Verdict
from tests.support.facts import count_objects, evaluate_filters, islands, kept_facts, level


def verdict(name: str, config: FilterConfig | None = None, **measure) -> Verdict:
    measured = {"coverage": [1.0], "islands": islands(1.0), "thickness": 0.5} | measure
    verdicts = evaluate_filters(kept_facts(measure=measured), config or FilterConfig())
    return next(verdict for verdict in verdicts if verdict.filter == name)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=32))
def test_occupancy_is_that_of_the_emptiest_view(coverage: list[float]) -> None:
    result = verdict("occupancy", coverage=coverage)
    assert result.keep is (min(coverage) >= 0.1)
    assert result.reason == ("passed" if result.keep else "low_occupancy")
    assert result.measured == pytest.approx(min(coverage), abs=1e-6)


def test_an_object_at_the_occupancy_limit_is_kept() -> None:
    assert verdict("occupancy", coverage=[0.1, 0.9]).keep
    assert not verdict("occupancy", coverage=[0.0999, 0.9]).keep
    config = FilterConfig.load({"occupancy": {"min_share": 0.05}})
    assert verdict("occupancy", config, coverage=[0.0999]).keep


@pytest.mark.parametrize(
    ("measured", "answer"),
    [
        (islands(1.0), "one"),
        (islands(0.96, 0.04), "one"),
        (islands(0.6, 0.4), "several"),
        (islands(0.9, 0.1), "several"),
        (islands(0.92, 0.08), "unsure"),
        # With a narrow gap, only pieces of similar size are clearly several objects.
        (islands(1.0, close=(0.7, 0.3)), "several"),
        (islands(1.0, close=(0.85, 0.15)), "unsure"),
        # On a common ground plate, three pieces are several objects; two may be handles.
        (islands(1.0, above=level(0.4, 0.3, 0.3)), "several"),
        (islands(1.0, above=level(0.6, 0.4)), "unsure"),
        (islands(1.0, above=level(0.97, 0.03)), "one"),
        # The pieces are too low, like the keys of a keyboard.
        (islands(1.0, above=level(0.4, 0.3, 0.3, height=0.05)), "unsure"),
    ],
)
def test_the_number_of_objects_follows_from_the_islands(measured: dict, answer: str) -> None:
    assert count_objects(measured, MultiObjectConfig())[0] == answer


def test_a_ground_plate_alone_is_one_object() -> None:
    measured = islands(1.0) | {"slab": {"top": 0.0, "share": 1.0, "cover": 1.0, "above": None}}
    assert count_objects(measured, MultiObjectConfig()) == ("one", 0.0)


def test_dropping_uncertain_objects_is_a_setting() -> None:
    uncertain = islands(0.92, 0.08)
    kept = verdict("several", islands=uncertain)
    assert (kept.keep, kept.reason) == (True, "maybe_several_objects")
    config = FilterConfig.load({"multi_object": {"drop_uncertain": True}})
    dropped = verdict("several", config, islands=uncertain)
    assert (dropped.keep, dropped.reason) == (False, "maybe_several_objects")
    assert dropped.measured == {"objects": "unsure", "share": 0.08}
    assert not verdict("several", islands=islands(0.5, 0.5)).keep
    assert verdict("several", config).keep


def test_an_object_that_is_too_thin_is_degenerate() -> None:
    assert verdict("degenerate", thickness=0.001).keep
    dropped = verdict("degenerate", thickness=0.0009)
    assert (dropped.keep, dropped.reason) == (False, "degenerate_geometry")
    config = FilterConfig.load({"degenerate": {"min_thickness": 0.2}})
    assert not verdict("degenerate", config, thickness=0.1).keep


def test_occupancy_is_checked_again_with_the_rendered_alpha() -> None:
    facts = kept_facts(render={"coverage": [0.5, 0.09]})
    verdicts = {v.filter: v for v in evaluate_filters(facts, FilterConfig())}
    assert verdicts["occupancy"].keep
    assert not verdicts["rendered_occupancy"].keep
    assert verdicts["rendered_occupancy"].reason == "low_occupancy"
    loose = FilterConfig.load({"occupancy": {"min_share": 0.05}})
    assert all(v.keep for v in evaluate_filters(facts, loose))


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**16))
def test_thickness_is_the_ratio_of_the_thinnest_to_the_longest_extent(
    b: float, c: float, seed: int
) -> None:
    """The shape is a box with sides 1, b, c in any orientation."""
    rng = np.random.default_rng(seed)
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, b) for z in (0, c)], dtype=float)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    ratio = thickness(corners @ rotation + rng.normal(size=3))
    # Equal sides have no unique principal axes: then the extent is at most a diagonal. For the
    # covariance, sides below the square root of the precision of floats are equal.
    assert ratio <= min(b, c) * 2**0.5 + 1e-6
    if max(b, c) < 0.9 and abs(b - c) > 0.1:
        assert ratio == pytest.approx(min(b, c), abs=1e-6)


def test_a_point_has_no_thickness() -> None:
    assert thickness(np.zeros((5, 3))) == 0
