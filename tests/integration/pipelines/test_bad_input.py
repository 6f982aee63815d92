"""Wrong input ends with one line of error and exit code 2, and nothing is written."""

import gzip
import json
import os
from pathlib import Path

import pytest

from dataset.root import open_root
from pipelines.building.dataset_status import load_dataset_state
from pipelines.demo.demo_mirror import CAPTIONS_FILE
from tests.support.datasets import QUICK
from tests.support.lrm import Answer, run_lrm


def assert_refused(answer: Answer, *parts: str) -> None:
    assert answer.code == 2, (answer.out, answer.err)
    assert answer.out == ""
    lines = answer.err.strip().splitlines()
    assert len(lines) == 1, answer.err
    for part in ("error: ", *parts):
        assert part in lines[0]


@pytest.fixture
def words(demo_source: Path) -> list:
    return ["--source", demo_source, "--captions", demo_source / CAPTIONS_FILE, *QUICK]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--rigg", "lrm32"], ["unknown option --rigg", "did you mean --rig?"]),
        (["--rig", "lrm23"], ["lrm23", "did you mean 'lrm32'?"]),
        (["--limit", "many"], ["limit", "whole number"]),
        (["--limit", "0"], ["limit", "greater than 0"]),
        (["--render.resolution", "-5"], ["render.resolution", "greater than 0"]),
        (["--render.device", "tpu"], ["render.device", "'cpu' or 'gpu'"]),
        (["--execution.fetch-resources", "{a: 0}"], ["fetch-resources.a", "greater than 0"]),
        (["--address", "127.0.0.1:1"], ["--address 127.0.0.1:1", "cannot connect to Ray"]),
    ],
)
def test_wrong_options_are_refused(words, tmp_path, options, parts):
    assert_refused(run_lrm("build", *words, "--root", tmp_path / "root", *options), *parts)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("rigg: lrm32", ["unknown key 'rigg'", "did you mean 'rig'?"]),
        ("render: {sampels: 4}", ["unknown key 'render.sampels'", "did you mean 'samples'?"]),
        ("render: 5", ["render", "got 5"]),
        ("render: {samples: lots}", ["render.samples", "got 'lots'"]),
        ("- a\n- b", ["must hold a mapping"]),
        ("a: [", ["is not valid YAML"]),
    ],
)
def test_a_wrong_configuration_file_is_refused(demo_source, tmp_path, text, parts):
    config = tmp_path / "config.yaml"
    config.write_text(text)
    words = ["--source", demo_source, "--root", tmp_path / "root", "--config", config]
    assert_refused(run_lrm("build", *words), str(config), *parts)
    assert not (tmp_path / "root").exists()


def test_a_section_of_the_configuration_must_be_a_mapping(words, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("render: 5")
    answer = run_lrm("plan", *words, "--root", tmp_path / "root", "--config", config)
    assert_refused(answer, "render must be a mapping of settings, got 5")


def test_a_missing_configuration_file(words, tmp_path):
    assert_refused(
        run_lrm("plan", *words, "--root", tmp_path / "r", "--config", "/no.yaml"), "/no.yaml"
    )


def test_missing_required_options_are_named(tmp_path):
    assert_refused(run_lrm("build", "--root", tmp_path / "root"), "--source is required")
    assert_refused(run_lrm("status"), "--root")
    assert_refused(run_lrm("train", "nerf"), "--root is required", "--snapshot is required")


def test_a_folder_that_is_no_mirror_is_refused_as_source(tmp_path):
    answer = run_lrm("build", "--source", tmp_path, "--root", tmp_path / "root")
    assert_refused(answer, str(tmp_path), "neither an Objaverse mirror", "object-paths.json.gz")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "is damaged"),
        ('{"a": ', "is damaged"),
        ("[]", "is not a JSON object"),
        (json.dumps({"a" * 32: "../../etc/passwd"}), "of the form glbs/FOLDER/FILE"),
    ],
)
def test_a_damaged_mirror(tmp_path, text, problem):
    # Compressed here and not in a parameter: gzip stores the time, and test ids must not change.
    data = b"\x1f\x8b\x08nonsense" if text is None else gzip.compress(text.encode())
    (tmp_path / "object-paths.json.gz").write_bytes(data)
    (tmp_path / "lvis-annotations.json.gz").write_bytes(gzip.compress(b"{}"))
    answer = run_lrm("plan", "--source", tmp_path, "--root", tmp_path / "root")
    assert_refused(answer, "object-paths.json.gz", problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0" * 32 + ",a red chair\n" + "1" * 32 + ",a gre", "truncated"),
        ("0" * 32 + ',"a red chair\n', "line 1"),
        ("0" * 32 + "\n", "expected 2 columns (id,caption)"),
        ("<!DOCTYPE html>,x\n", "'<!DOCTYPE html>' is not an id"),
    ],
)
def test_a_wrong_captions_file_is_refused(demo_source, tmp_path, text, problem):
    captions = tmp_path / "captions.csv"
    captions.write_text(text)
    answer = run_lrm(
        "build", "--source", demo_source, "--captions", captions, "--root", tmp_path / "root"
    )
    assert_refused(answer, str(captions), problem)
    assert not (tmp_path / "root").exists()


def test_a_missing_captions_file_is_refused(demo_source, tmp_path):
    words = ["--source", demo_source, "--captions", tmp_path / "no.csv", "--root", tmp_path / "r"]
    assert_refused(run_lrm("build", *words), "no.csv", "cannot read the captions")


def test_a_root_that_cannot_be_written(words, tmp_path):
    # A file in place of a folder fails for the user root as well, who ignores permissions.
    (tmp_path / "file").write_text("")
    answer = run_lrm("build", *words, "--root", tmp_path / "file" / "root", "--address", "none")
    assert_refused(answer, "a part of the path is a file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_root_without_permission(words, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    answer = run_lrm("build", *words, "--root", tmp_path / "locked" / "root", "--address", "none")
    assert_refused(answer, "cannot write here")


def test_a_root_of_a_newer_format(words, tmp_path):
    (tmp_path / "dataset.json").write_text('{"format": 99}')
    for command in (["build", *words], ["plan", *words], ["status"], ["snapshot"]):
        assert_refused(
            run_lrm(*command, "--root", tmp_path), "format 99 is newer", "update the software"
        )
    assert os.listdir(tmp_path) == ["dataset.json"]


def test_a_root_with_other_files(words, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    assert_refused(run_lrm("build", *words, "--root", tmp_path), "thesis.tex")
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_commands_without_a_dataset(tmp_path):
    for command in (["status"], ["inspect", "objaverse:x"], ["snapshot"]):
        assert_refused(run_lrm(*command, "--root", tmp_path / "no"), "no dataset here", "lrm build")
    assert not (tmp_path / "no").exists()


def test_inspecting_an_unknown_object_is_refused(built_dataset):
    assert_refused(
        run_lrm("inspect", "--root", built_dataset.root, "objaverse:nope"), "not in this dataset"
    )
    assert_refused(
        run_lrm("inspect", "--root", built_dataset.root, "nope"), "not an asset id", "objaverse:UID"
    )


def test_a_sheet_of_an_object_without_views(built_dataset, tmp_path):
    dataset_state = load_dataset_state(open_root(str(built_dataset.root)))
    dropped = next(
        state.asset_id
        for state, decision in dataset_state.with_decisions()
        if decision.state == "dropped"
    )
    sheet = tmp_path / "sheet.png"
    answer = run_lrm("inspect", "--root", built_dataset.root, dropped, "--sheet", sheet)
    assert_refused(answer, "it has no views to show")
    assert not sheet.exists()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--where", "nonsense ="], "is not a valid condition"),
        (["--where", "licence = 'none of these'"], "no kept sample"),
        (["--validation-share", "1.5"], "--validation-share"),
    ],
)
def test_wrong_snapshot_options_are_refused(built_dataset, options, part):
    assert_refused(run_lrm("snapshot", "--root", built_dataset.root, *options), part)
