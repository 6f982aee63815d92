"""A build of real models: the filters agree with the labels that people gave."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dataset.format.geometry import read_geometry
from dataset.root import open_root
from filters.shape import OCCUPANCY, RENDERED_OCCUPANCY
from pipelines.building.dataset_status import DatasetState, inspect_object, load_dataset_state
from tests.support.datasets import QUICK, create_once
from tests.support.lrm import run_lrm


@pytest.fixture(scope="module")
def labels(mirror: Path) -> dict[str, dict]:
    return json.loads((mirror / "labels.json").read_text())


@pytest.fixture(scope="module")
def dataset_state(mirror: Path, shared_folder: Path) -> DatasetState:
    """Build all models of the mirror, without the caption filter, so that all are measured."""
    root = shared_folder / "mirror"
    words = ["--source", mirror, "--root", root, *QUICK, "--filters.caption.enabled", "false"]

    def build() -> None:
        status = run_lrm("build", *words, "--geometry", "--json").json()
        parts = (status["kept"], *status["dropped"].values(), *status["failed"].values())
        assert sum(parts) == status["listed"]
        assert status["pending"] == 0

    create_once(root, build)
    return load_dataset_state(open_root(str(root)))


def label(labels, asset_id: str) -> dict:
    return labels[asset_id.partition(":")[2]]


def test_only_malformed_and_missing_files_fail(dataset_state, labels):
    kinds = Counter()
    for state, decision in dataset_state.with_decisions():
        known = label(labels, state.asset_id)
        if known["class"] in ("malformed", "missing"):
            assert decision.state in ("failed", "dropped"), known["name"]
        if decision.failure is not None:
            kinds[decision.failure.kind] += 1
    unforeseen = {"internal_error", "crash", "timeout", "out_of_memory", "bad_output"}
    assert unforeseen.isdisjoint(kinds), kinds


def test_low_poly_tags_agree_with_the_labels(dataset_state, labels):
    for state, decision in dataset_state.with_decisions():
        known = label(labels, state.asset_id)
        if "lowpoly_tag" in known:
            reasons = {verdict.reason for verdict in decision.verdicts if not verdict.keep}
            assert ("lowpoly_tag" in reasons) == known["lowpoly_tag"], known["name"]


def test_the_multi_object_filter_agrees_with_the_labels(dataset_state, labels):
    """The filter uses surface points of the evaluated Blender scene, as in every build."""
    agree, single, wrong = Counter(), 0, []
    for state, decision in dataset_state.with_decisions():
        expected = label(labels, state.asset_id).get("multi_object")
        verdict = next((v for v in decision.verdicts if v.filter == "several"), None)
        if expected is None or verdict is None:
            continue
        agree[verdict.keep != expected] += 1
        single += not expected
        if not expected and not verdict.keep:
            wrong.append(label(labels, state.asset_id)["name"])
    if sum(agree.values()) < 10:
        pytest.skip("too few models with a decided label were measured")
    assert agree[True] / sum(agree.values()) >= 0.85, agree
    assert len(wrong) <= single / 20, wrong


def test_kept_objects_fill_the_frame(dataset_state):
    for state in dataset_state.kept:
        assert state.get(OCCUPANCY.facts[0]) >= 0.1
        rendered = state.get(RENDERED_OCCUPANCY.facts[0])
        assert rendered >= 0.1, state.asset_id


def test_meshes_of_kept_objects_fill_the_cube(dataset_state):
    root = open_root(dataset_state.config.root)
    for state in dataset_state.kept:
        surface = read_geometry(root, dataset_state.geometry_path(state))
        low, high = surface.vertices.min(axis=0), surface.vertices.max(axis=0)
        np.testing.assert_allclose(low, -high, atol=1e-3, err_msg=state.asset_id)
        assert high.max() == pytest.approx(1, abs=1e-3), state.asset_id
        assert (np.abs(surface.points) <= high + 1e-5).all(), state.asset_id
        measurements = inspect_object(root, state.asset_id)["measurements"]["measure"]
        num_triangles = measurements["scene"]["num_triangles"]
        assert 0.5 * num_triangles < len(surface.faces) <= num_triangles, state.asset_id
