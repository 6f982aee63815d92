"""What the source says decides: caption, tags, licence, age."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.chain import FilterConfig
from filters.provenance import AgeConfig, LicenceConfig, is_lowpoly_tag
from filters.verdict import Verdict
from tests.support.facts import Facts, judge, record


def verdict(of: str, config: FilterConfig | None = None, **changed) -> Verdict:
    verdicts = judge(Facts(record=record(**changed)), config or FilterConfig())
    return next(found for found in verdicts if found.filter == of)


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
def test_lowpoly_tags(tag: str) -> None:
    assert is_lowpoly_tag(tag)
    found = verdict("lowpoly", tags=("wood", tag))
    assert (found.keep, found.reason, found.measured) == (False, "lowpoly_tag", [tag])


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
def test_other_tags(tag: str) -> None:
    assert not is_lowpoly_tag(tag)
    assert verdict("lowpoly", tags=(tag,)).keep


@given(
    st.sampled_from(["", "-", "_", " ", "--", " - ", "."]),
    st.sampled_from(["", "s", "art", "-art", " model", "_3d", "gon", "game"]),
    st.sampled_from([str.lower, str.upper, str.title]),
    st.sampled_from(["", "stylized ", "game-", "very_", "3d "]),
)
def test_every_spelling_is_caught(separator: str, ending: str, case, beginning: str) -> None:
    assert is_lowpoly_tag(case(f"{beginning}low{separator}poly{ending}"))


@given(
    st.sampled_from(["yel", "s", "g", "f", "b", "be", "hol", "pil", "fol", "mel", "shal", "p"]),
    st.sampled_from(["", "-", "_", " "]),
    st.sampled_from([str.lower, str.upper, str.capitalize]),
)
def test_no_word_that_ends_in_low_is_caught(beginning: str, separator: str, case) -> None:
    assert not is_lowpoly_tag(case(f"{beginning}low{separator}poly"))


@given(st.text(max_size=30), st.text(max_size=30))
def test_other_words_beside_it_do_not_matter(left: str, right: str) -> None:
    assert is_lowpoly_tag(f"{left} low-poly {right}")
    is_lowpoly_tag(left + right)


def test_name_and_description_do_not_count() -> None:
    assert verdict("lowpoly", name="Low Poly House", caption="a low poly house").keep


@pytest.mark.parametrize("caption", [None, "", "   \n"])
def test_no_caption(caption: str | None) -> None:
    found = verdict("caption", caption=caption)
    assert (found.keep, found.reason, found.measured, found.limit) == (False, "no_caption", 0, 1)


def test_a_caption() -> None:
    assert verdict("caption", caption=" a mug ").measured == 5
    strict = FilterConfig.load({"caption": {"min_characters": 6}})
    assert not verdict("caption", strict, caption=" a mug ").keep


def test_licences() -> None:
    config = FilterConfig(licence=LicenceConfig(enabled=True, allowed=("by", "CC0")))
    assert verdict("licence", config, licence="by").keep
    assert verdict("licence", config, licence="cc0").keep
    for licence in ("by-nc", "", None):
        found = verdict("licence", config, licence=licence)
        assert (found.keep, found.reason) == (False, "licence_not_allowed")
        assert found.measured == licence


def test_age() -> None:
    config = FilterConfig(age=AgeConfig(enabled=True))
    assert verdict("age", config).keep
    found = verdict("age", config, age_restricted=True)
    assert (found.keep, found.reason) == (False, "age_restricted")
