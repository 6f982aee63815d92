"""Damaged files beside the catalog: what tells it is used, or one line names the file."""

import json
import logging
import resource
import subprocess

import pytest

from core.config import canonical_json
from core.errors import BadInput, WorkFailed
from core.storage import Storage
from dataset.build_records import read_records
from dataset.root import check_root, read_build, write_build
from pipelines.building.build_config import BuildConfig
from tests.support.damages import DAMAGES

STARTED = "2026-11-30T12:00:00+00:00"
CONFIG = BuildConfig(source="s", root="r").dump()
SETTINGS = {name: CONFIG[name] for name in ("source", "render", "filters")}
RECORD = {
    "started": STARTED,
    "run": "r1",
    "command": "lrm build",
    "rig": "orbit21",
    "settings": SETTINGS,
    "versions": {"render": "render/2"},
    "objects": {"kept": 3},
    "changes": [],
    "estimate": {"core_hours": 1},
    "of a later version": [1],
}
ESTIMATE = {"since": STARTED, "stages": {"render": {"objects": 1}}}
BUILD = {"config": CONFIG, "estimate": ESTIMATE, "rigs": {"orbit21": {"settings": SETTINGS}}}
OPTIONAL = {("rig",), ("settings",), ("versions",), ("objects",)}
"""Values of a record that may be null."""


@pytest.fixture
def root(tmp_path) -> Storage:
    root = Storage(str(tmp_path))
    write_build(root, BUILD)
    root.write("builds/20261130T120000Z-r1.json", canonical_json(RECORD).encode())
    return root


def _form(value):
    return float if isinstance(value, int) else type(value)


def _at(values, path):
    for key in path:
        values = values[key]
    return values


def _paths(values, depth: int = 3):
    """Yield the path of every value in nested mappings and lists."""
    items = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in items:
        yield (key,)
        if depth > 1 and isinstance(value, dict | list) and key not in ("config", "settings"):
            yield from ((key, *path) for path in _paths(value, depth - 1))


def _with(values, path, value):
    copy = json.loads(json.dumps(values))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_lost_build_json_is_recovered_from_the_newest_record(root, tmp_path, damage, caplog):
    damage(tmp_path / "build.json")
    build = read_build(root)
    assert f"{root.uri}/build.json is unreadable" in caplog.text
    assert "`lrm build` writes it again" in caplog.text
    assert build["rigs"]["orbit21"]["versions"] == RECORD["versions"]
    config = BuildConfig.load(build["config"])
    assert (config.rig, config.root, config.source) == ("orbit21", root.uri, "s")


@pytest.mark.parametrize("damage", sorted(DAMAGES.keys() - {"replaced"}))
def test_a_lost_build_json_without_a_record_is_named(root, tmp_path, damage):
    root.delete("builds/20261130T120000Z-r1.json")
    DAMAGES[damage](tmp_path / "build.json")
    with pytest.raises(WorkFailed, match=r"build\.json is unreadable: .*; restore it") as caught:
        read_build(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_lost_format_is_named_with_the_command_that_restores_it(root, tmp_path, damage):
    (tmp_path / "catalog").mkdir()
    damage(tmp_path / "dataset.json")
    with pytest.raises(BadInput, match=r"dataset\.json is .*`rm -rf .* echo") as caught:
        check_root(root)
    assert "\n" not in str(caught.value)
    subprocess.run(str(caught.value).split("`")[1], shell=True, check=True)
    assert check_root(root)


def test_an_error_of_the_machine_is_not_taken_for_damage(root):
    """Its remedy would delete the file."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(WorkFailed) as caught:
            check_root(root)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert str(caught.value) == f"{root.uri}: cannot read dataset.json: Too many open files"


@pytest.mark.parametrize("value", ["2", 2.0, True, None, [], "x" * 9])
def test_a_format_that_is_no_number_is_named(root, value):
    root.write("dataset.json", json.dumps({"format": value}).encode())
    with pytest.raises(BadInput, match=r"dataset\.json is damaged"):
        check_root(root)


@pytest.mark.parametrize("value", [[1, 2], "x", 5, None], ids=["list", "text", "number", "null"])
def test_a_value_of_a_record_with_another_type_is_damage(root, caplog, value):
    """A command that used it would end with a traceback."""
    for path in _paths(RECORD):
        if path[0] == "of a later version" or _form(value) == _form(_at(RECORD, path)):
            continue
        if value is None and path in OPTIONAL:
            continue
        root.write("builds/a.json", canonical_json(_with(RECORD, path, value)).encode())
        caplog.clear()
        assert len(read_records(root)) == 1, path
        assert "a.json is damaged" in caplog.text


def test_every_value_of_build_json_of_another_type_is_damage(root, caplog):
    for path in _paths(BUILD):
        if path[0] == "config":
            continue
        for value in ([1, 2], "x"):
            caplog.clear()
            write_build(root, _with(BUILD, path, value))
            assert read_build(root)["config"]["rig"] == "orbit21"
            assert "build.json is unreadable" in caplog.text, (path, value)


def test_records_that_are_left_out_are_one_warning(root, caplog):
    caplog.set_level(logging.WARNING)
    for name in ("20261130T110000Z-a.json", "20261130T110000Z-b.json"):
        root.write(f"builds/{name}", b"{")
    assert [record["run"] for record in read_records(root)] == ["r1"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "20261130T110000Z-a.json is damaged" in line
    assert "and 1 more: left out; restore or delete" in line
