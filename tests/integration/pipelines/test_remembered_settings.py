"""A dataset remembers its settings: `lrm build --root DIR` alone is the refresh."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.datasets import BuiltDataset, events_of
from tests.support.lrm import Answer, run_lrm


@pytest.fixture
def root(built_dataset: BuiltDataset, tmp_path: Path) -> Path:
    """Return a copy of the demo dataset, built at 40 pixels with captions."""
    return shutil.copytree(built_dataset.root, tmp_path / "root")


def build_record(root: Path) -> dict[str, Any]:
    return json.loads((root / "build.json").read_text())


def without_memory(root: Path) -> None:
    """Make the record of the last build one of an earlier version."""
    record = build_record(root)
    del record["rigs"]
    (root / "build.json").write_text(json.dumps(record))


def print_config(*words: Any) -> dict[str, Any]:
    answer = run_lrm("build", "--print-config", *words)
    assert answer.code == 0, answer.err
    return yaml.safe_load(answer.out)


def refused(answer: Answer, *parts: str) -> None:
    assert answer.code == 2, (answer.out, answer.err)
    (line,) = answer.err.splitlines()
    for part in parts:
        assert part in line


@pytest.mark.parametrize("is_old", [False, True])
def test_the_refresh_needs_only_the_root(root, is_old):
    if is_old:
        without_memory(root)
    events = len(events_of(root))
    assert run_lrm("plan", "--root", root, "--json").json()["work"] == {}
    status = run_lrm("build", "--root", root, "--address", "none", "--json").json()
    assert status["kept"] == 9
    assert len(events_of(root)) == events
    assert build_record(root)["config"]["render"]["resolution"] == 40


def test_options_come_before_the_file_and_the_file_before_the_memory(root, tmp_path):
    file = tmp_path / "build.yaml"
    file.write_text("render: {samples: 2, seed: 5}\nlimit: 3\nprices: {core_hour: 1.0}\n")
    words = ["--root", root, "--config", file, "--render.samples", "3", "--captions", "null"]
    config = print_config(*words)
    assert config["render"] | {"resolution": 40, "samples": 3, "seed": 5} == config["render"]
    assert (config["captions"], config["limit"], config["shards"]["samples_per_shard"]) == (
        *(None, 3),
        4,
    )
    file.write_text(yaml.safe_dump(config))
    assert print_config("--config", file) == config


def test_the_configuration_is_printed_as_json(root):
    answer = run_lrm("build", "--print-config", "--json", "--root", root)
    assert answer.json() == print_config("--root", root)


def test_the_configuration_can_be_read_from_a_pipe(root, tmp_path):
    (tmp_path / "build.yaml").write_text(f"root: {root}\ngeometry: true\n")
    with open(tmp_path / "build.yaml") as file:
        config = print_config("--config", f"/dev/fd/{file.fileno()}")
    assert (config["geometry"], config["render"]["resolution"]) == (True, 40)


def test_the_configuration_is_printed_without_a_source(root, tmp_path):
    words = ["--root", tmp_path / "new", "--source", tmp_path / "absent"]
    assert print_config(*words)["source"] == str(tmp_path / "absent")
    assert not (tmp_path / "new").exists()
    refused(run_lrm("build", "--print-config", "--root", tmp_path / "new"), "--source is required")
    record = (root / "build.json").read_bytes()
    print_config("--root", root, "--render.resolution", "64")
    assert (root / "build.json").read_bytes() == record


def test_settings_of_one_call_are_not_remembered(root, tmp_path):
    words = ["--limit", "3", "--blender.threads", "2", "--prices.core-hour", "1"]
    assert run_lrm("build", "--root", root, "--address", "none", *words).code == 0
    assert build_record(root)["config"]["limit"] == 3
    config = print_config("--root", root)
    assert (config["limit"], config["address"]) == (None, "local")
    assert (config["blender"]["threads"], config["prices"]["core_hour"]) == (1, None)


def test_every_rig_has_its_own_settings(root):
    """A new rig starts from the settings of the last build; the first keeps its own."""
    other = ["--rig", "zero123plus", "--render.resolution", "32", "--address", "none"]
    answer = run_lrm("build", "--root", root, "--limit", "1", *other)
    assert answer.code == 0
    assert "no build with the rig zero123plus yet" in answer.err
    last = print_config("--root", root)
    assert (last["rig"], last["render"]["resolution"]) == ("zero123plus", 32)
    assert last["captions"] is not None
    first = print_config("--root", root, "--rig", "lrm32")
    assert (first["rig"], first["render"]["resolution"]) == ("lrm32", 40)
    answer = run_lrm("plan", "--root", root, "--rig", "lrm32", "--json")
    assert (answer.json()["work"], answer.err) == ({}, "")
    # A dataset of an earlier version remembers only the settings of its last build.
    without_memory(root)
    shutil.rmtree(root / "builds")
    answer = run_lrm("plan", "--root", root, "--rig", "lrm32", "--json")
    assert "the settings of the rig lrm32 are not recorded: give them" in answer.err
    assert "no build" not in answer.err
    changes = answer.json()["changes"]["items"]
    assert {change["name"] for change in changes} == {"render", "pack"}
    assert {change["before"] for change in changes} == {"settings that are not recorded"}


def test_the_help_says_that_settings_are_remembered():
    text = " ".join(run_lrm("build", "--help-all").out.split())
    assert "in pixels. [default: as the last build, at first 512]" in text
    assert "GLB files. [default: as the last build]" in text
    assert text.count("[default: local]") == 1


def test_filters_only_takes_the_file_of_the_build(root, built_dataset, tmp_path, monkeypatch):
    """Paths in the file are relative, and it has settings that are not remembered."""
    (tmp_path / "models").symlink_to(built_dataset.source)
    config = build_record(root)["config"]
    (tmp_path / "build.yaml").write_text(
        "source: models\nroot: root\nlimit: 5\naddress: auto\nprices: {core_hour: 0.1}\n"
        f"captions: {config['captions']}\nfilters: {{caption: {{enabled: false}}}}\n"
    )
    monkeypatch.chdir(tmp_path)
    record = build_record(root)
    record["config"]["source"] = str(tmp_path / "models")
    record["rigs"]["lrm32"]["settings"]["source"] = str(tmp_path / "models")
    (root / "build.json").write_text(json.dumps(record))
    assert run_lrm("build", "--filters-only", "--config", "build.yaml").code == 0
    assert print_config("--root", root)["filters"]["caption"]["enabled"] is False
    # A full build keeps the filters, and the settings of the machine are those of the last build.
    assert run_lrm("plan", "--root", root, "--json").json()["work"] == {"fetch": {"new": 1}}
    assert (build_record(root)["config"]["limit"], build_record(root)["config"]["address"]) == (
        *(None, "none"),
    )


def test_filters_only_changes_no_other_setting(root):
    words = ["build", "--filters-only", "--root", root]
    answer = run_lrm(*words, "--render.resolution", "64", "--geometry")
    refused(answer, "only filters", "geometry, render.resolution")
    refused(run_lrm(*words, "--rig", "orbit21"), "orbit21", "only with lrm32")


@pytest.mark.parametrize("name", ["source", "captions"])
def test_a_source_or_captions_that_have_moved_are_named_as_remembered(root, tmp_path, name):
    record = build_record(root)
    record["rigs"]["lrm32"]["settings"][name] = str(tmp_path / "moved")
    (root / "build.json").write_text(json.dumps(record))
    answer = run_lrm("build", "--root", root, "--address", "none")
    refused(answer, str(tmp_path / "moved"), f"remembers the {name}", f"give --{name}")
    answer = run_lrm("plan", "--root", root, f"--{name}", tmp_path / "moved")
    refused(answer, str(tmp_path / "moved"))
    assert "remembers" not in answer.err
