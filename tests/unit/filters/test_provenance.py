"""The filters of the source's metadata: caption, tags, licence, age."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.chain import FilterConfig
from filters.provenance import AgeConfig, LicenceConfig, is_lowpoly_tag
from filters.verdict import Verdict
from tests.support.facts import Facts, evaluate_filters, record


def verdict(filter_name: str, config: FilterConfig | None = None, **changed) -> Verdict:
    verdicts = evaluate_filters(Facts(record=record(**changed)), config or FilterConfig())
    return next(verdict for verdict in verdicts if verdict.filter == filter_name)


@pytest.mark.parametrize(
    "tag",
    [
        "lowpoly",
        "low-poly",
        "low_poly",
        "Low Poly",
        "LOW POLY",
        "low  poly",
        "low-polys",
        "low_polys",
        "lowpolys",
        "low-poly-art",
        "lowpolyart",
        "lowpoly-gameasset",
        "stylized-lowpoly",
        "lowpoly3d",
        "3dlowpoly",
        "3D-low-poly",
        "LowPolyArt",
        "GameLowPoly",
        "3DLowPoly",
        "low-polygon",
        "low.poly",
        "low\u2010poly",
        "\uff4c\uff4f\uff57poly",
        "#lowpoly",
    ],
)
def test_lowpoly_tags_are_recognised(tag: str) -> None:
    assert is_lowpoly_tag(tag)
    dropped = verdict("lowpoly", tags=("wood", tag))
    assert (dropped.keep, dropped.reason, dropped.measured) == (False, "lowpoly_tag", [tag])


@pytest.mark.parametrize(
    "tag",
    [
        "polygon",
        "poly",
        "low",
        "highpoly",
        "high-poly",
        "midpoly",
        "slow",
        "slow-poly",
        "yellow poly",
        "yellowpoly",
        "YellowPoly",
        "hollow-polygon",
        "below_poly",
        "glowpoly",
        "low-polyester",
        "low polymer",
        "lowpass-poly",
        "low-detail poly",
        "polylow",
        "flow",
        "",
    ],
)
def test_other_tags_are_kept(tag: str) -> None:
    assert not is_lowpoly_tag(tag)
    assert verdict("lowpoly", tags=(tag,)).keep


@given(
    st.sampled_from(["", "-", "_", " ", "--", " - ", "."]),
    st.sampled_from(["", "s", "art", "-art", " model", "_3d", "gon", "game"]),
    st.sampled_from([str.lower, str.upper, str.title]),
    st.sampled_from(["", "stylized ", "game-", "very_", "3d "]),
)
def test_every_spelling_is_recognised(separator: str, ending: str, case, beginning: str) -> None:
    assert is_lowpoly_tag(case(f"{beginning}low{separator}poly{ending}"))


@given(
    st.sampled_from(["yel", "s", "g", "f", "b", "be", "hol", "pil", "fol", "mel", "shal", "p"]),
    st.sampled_from(["", "-", "_", " "]),
    st.sampled_from([str.lower, str.upper, str.capitalize]),
)
def test_other_words_that_end_in_low_are_kept(beginning: str, separator: str, case) -> None:
    assert not is_lowpoly_tag(case(f"{beginning}low{separator}poly"))


@given(st.text(max_size=30), st.text(max_size=30))
def test_other_text_in_the_tag_does_not_matter(left: str, right: str) -> None:
    assert is_lowpoly_tag(f"{left} low-poly {right}")
    is_lowpoly_tag(left + right)


def test_name_and_description_do_not_count() -> None:
    assert verdict("lowpoly", name="Low Poly House", caption="a low poly house").keep


@pytest.mark.parametrize("caption", [None, "", "   \n"])
def test_an_object_without_a_caption_is_dropped(caption: str | None) -> None:
    dropped = verdict("caption", caption=caption)
    assert (dropped.keep, dropped.reason, dropped.measured, dropped.limit) == (
        False,
        "no_caption",
        0,
        1,
    )


def test_a_caption_is_measured_in_characters() -> None:
    assert verdict("caption", caption=" a mug ").measured == 5
    strict = FilterConfig.load({"caption": {"min_characters": 6}})
    assert not verdict("caption", strict, caption=" a mug ").keep


def test_only_allowed_licences_are_kept() -> None:
    config = FilterConfig(licence=LicenceConfig(enabled=True, allowed=("by", "CC0")))
    assert verdict("licence", config, licence="by").keep
    assert verdict("licence", config, licence="cc0").keep
    for licence in ("by-nc", "", None):
        dropped = verdict("licence", config, licence=licence)
        assert (dropped.keep, dropped.reason) == (False, "licence_not_allowed")
        assert dropped.measured == licence


def test_an_age_restricted_object_is_dropped() -> None:
    config = FilterConfig(age=AgeConfig(enabled=True))
    assert verdict("age", config).keep
    dropped = verdict("age", config, age_restricted=True)
    assert (dropped.keep, dropped.reason) == (False, "age_restricted")
