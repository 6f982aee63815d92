"""The whole build on real models: what people said of them, the filters say as well."""

import json
from collections import Counter
from pathlib import Path

import pytest

from dataset.root import open_root
from pipelines.status import Standing, load_standing
from tests.pipelines.conftest import QUICK, run_lrm


@pytest.fixture(scope="module")
def labels(mirror: Path) -> dict[str, dict]:
    return json.loads((mirror / "labels.json").read_text())


@pytest.fixture(scope="module")
def standing(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Standing:
    """All models of the mirror, judged; without captions in the chain so that all are measured."""
    root = tmp_path_factory.mktemp("mirror") / "root"
    words = ["--source", mirror, "--root", root, *QUICK, "--filters.caption.enabled", "false"]
    status = run_lrm("build", *words, "--json").json()
    parts = (status["kept"], *status["dropped"].values(), *status["failed"].values())
    assert sum(parts) == status["listed"]
    assert status["pending"] == 0
    return load_standing(open_root(str(root)))


def label(labels, asset_id: str) -> dict:
    return labels[asset_id.partition(":")[2]]


def test_broken_and_missing_files_fail_and_nothing_else_breaks(standing, labels):
    kinds = Counter()
    for asset_id, decision in standing.decisions.items():
        known = label(labels, asset_id)
        if known["class"] in ("malformed", "missing"):
            assert decision.state in ("failed", "dropped"), known["name"]
        if decision.failure is not None:
            kinds[decision.failure.kind] += 1
    unforeseen = {"internal_error", "crash", "timeout", "out_of_memory", "bad_output"}
    assert unforeseen.isdisjoint(kinds), kinds


def test_low_poly_tags_are_those_that_people_marked(standing, labels):
    for asset_id, decision in standing.decisions.items():
        known = label(labels, asset_id)
        if "lowpoly_tag" in known:
            reasons = {verdict.reason for verdict in decision.verdicts if not verdict.keep}
            assert ("lowpoly_tag" in reasons) == known["lowpoly_tag"], known["name"]


def test_separate_objects_agree_with_the_labels(standing, labels):
    """By the surface points of the evaluated Blender scene, as in production."""
    agree, single, wrong = Counter(), 0, []
    for asset_id, decision in standing.decisions.items():
        expected = label(labels, asset_id).get("multi_object")
        verdict = next((v for v in decision.verdicts if v.filter == "several"), None)
        if expected is None or verdict is None:
            continue
        agree[verdict.keep != expected] += 1
        single += not expected
        if not expected and not verdict.keep:
            wrong.append(label(labels, asset_id)["name"])
    if sum(agree.values()) < 10:
        pytest.skip("too few models with a decided label were measured")
    assert agree[True] / sum(agree.values()) >= 0.85, agree
    assert len(wrong) <= single / 20, wrong


def test_what_is_kept_fills_the_frame(standing):
    for state in standing.kept:
        assert min(state.results["measure"].data["coverage"]) >= 0.1
        rendered = min(state.results["render"].data["coverage"])
        assert rendered > 0.05, state.record.asset_id
