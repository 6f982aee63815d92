"""The chain of filters: order, required measurements, configuration, stored verdicts."""

import json

import pytest

from core.errors import BadInput
from filters.chain import CHAIN, FilterConfig, filter_title, reason_title, value_text
from filters.verdict import PASSED, Verdict
from tests.support.facts import Facts, evaluate_filters, islands, kept_facts, record

ALL = FilterConfig.load({"licence": {"enabled": True}, "age": {"enabled": True}})
STAGES = ["list", "inspect", "measure", "render"]


def test_every_filter_has_its_configuration() -> None:
    fields = [link.settings or link.name for link in CHAIN]
    assert list(dict.fromkeys(fields)) == list(FilterConfig.model_fields)
    assert len({link.name for link in CHAIN}) == len(CHAIN)


def test_the_cheapest_filters_come_first() -> None:
    order = [STAGES.index(link.needs) for link in CHAIN]
    assert order == sorted(order)


def test_a_good_object_passes_every_filter() -> None:
    verdicts = evaluate_filters(kept_facts(), ALL)
    assert [verdict.filter for verdict in verdicts] == [link.name for link in CHAIN]
    assert {(verdict.keep, verdict.reason) for verdict in verdicts} == {(True, PASSED)}


def test_a_filter_without_its_measurements_is_skipped() -> None:
    names = [verdict.filter for verdict in evaluate_filters(Facts(record=record()), ALL)]
    assert names == ["caption", "lowpoly", "licence", "age"]
    names = [
        verdict.filter for verdict in evaluate_filters(kept_facts(measure=None, render=None), ALL)
    ]
    assert names == ["caption", "lowpoly", "licence", "age", "textured", "missing_texture"]


def test_licence_and_age_are_off_by_default() -> None:
    bad = kept_facts(record=record(licence=None, age_restricted=True))
    names = [verdict.filter for verdict in evaluate_filters(bad, FilterConfig())]
    assert "licence" not in names
    assert "age" not in names
    assert len(names) == len(CHAIN) - 2


def test_all_reasons_are_reported() -> None:
    facts = kept_facts(
        record=record(caption=None, tags=("low-poly",)),
        inspect={"num_triangles": 5, "base_colour_maps": []},
        measure={"coverage": [0.01], "islands": islands(0.5, 0.5)},
    )
    dropped = [
        verdict.reason for verdict in evaluate_filters(facts, FilterConfig()) if not verdict.keep
    ]
    assert dropped == [
        "no_caption",
        "lowpoly_tag",
        "no_texture_map",
        "several_objects",
        "low_occupancy",
    ]


def test_every_filter_can_be_turned_off() -> None:
    off = FilterConfig.load({name: {"enabled": False} for name in FilterConfig.model_fields})
    assert evaluate_filters(kept_facts(), off) == []


def test_verdicts_survive_json() -> None:
    facts = kept_facts(record=record(caption=None, tags=("low-poly",), licence=None))
    for verdict in evaluate_filters(facts, ALL):
        assert Verdict.from_dict(json.loads(json.dumps(verdict.to_dict()))) == verdict


def test_filters_do_not_change_the_facts_and_are_repeatable() -> None:
    facts = kept_facts()
    before = json.dumps([facts.inspect, facts.measure])
    assert evaluate_filters(facts, ALL) == evaluate_filters(facts, ALL)
    assert json.dumps([facts.inspect, facts.measure]) == before


def test_the_configuration_survives_dump_and_load() -> None:
    config = FilterConfig.load({"occupancy": {"min_share": 0.2}})
    assert FilterConfig.load(config.dump()) == config


def test_old_names_of_settings_are_accepted() -> None:
    old = {"several": {"drop_unsure": True, "min_share": 0.2}, "license": {"enabled": True}}
    new = {"multi_object": {"drop_uncertain": True, "min_area_share": 0.2}}
    assert FilterConfig.load(old) == FilterConfig.load(new | {"licence": {"enabled": True}})
    with pytest.raises(BadInput, match=r"several"):
        FilterConfig.load({"several": {"drop_unsur": True}})


def test_text_shows_titles_and_unknown_names_unchanged() -> None:
    assert (filter_title("several"), reason_title("several_objects")) == ("multi-object",) * 2
    assert (filter_title("caption"), reason_title("no_caption")) == ("caption", "no_caption")


def test_values_are_shown_as_words():
    limit = {"share": 0.1, "drop_unsure": True}
    assert value_text("several", limit) == "share 0.1, drop uncertain yes"
    assert value_text("several", {"objects": "unsure"}) == "objects uncertain"
    assert value_text("licence", ["by", "cc0"]) == "by, cc0"
    assert value_text("lowpoly", None) == "none"
    assert (filter_title("remove"), reason_title("removed")) == ("remove", "removed")


def test_an_unknown_key_is_an_error_that_suggests_the_closest() -> None:
    with pytest.raises(BadInput, match=r"min_share"):
        FilterConfig.load({"occupancy": {"min_shar": 0.2}})
