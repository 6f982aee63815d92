"""`lrm history`: one row per build, with its changes and costs."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadInput, Stopped, WorkFailed
from core.lock import exclusive_lock
from core.storage import Storage
from dataset.build_records import recorded
from tests.support.datasets import BuiltDataset, events_of
from tests.support.lrm import run_lrm


@pytest.fixture
def root(built_dataset: BuiltDataset, tmp_path: Path) -> Path:
    """Return a copy with the record of the first build alone: tests build in the shared root."""
    copy = shutil.copytree(built_dataset.root, tmp_path / "root")
    for record in sorted((copy / "builds").iterdir())[1:]:
        record.unlink()
    return copy


def builds(root: Path) -> list[dict[str, Any]]:
    return run_lrm("history", "--root", root, "--json").json()["builds"]


def json_of(root: Path) -> dict[str, Any]:
    return json.loads((root / "build.json").read_text())


def test_every_build_is_a_row(root):
    words = ["build", "--root", root, "--address", "none"]
    filters = ["--filters-only", "--filters.occupancy.min-share", "0.11"]
    assert run_lrm(*words, *filters).code == 0
    assert run_lrm(*words, "--limit", "5", "--inspect.max-nodes", "9000").code == 0
    first, second, third = builds(root)
    assert first["objects"] == {"dropped": 3, "failed": 1, "kept": 9}
    assert first["events"]["render"] == {"ok": 9}
    assert (first["state"], first["changes"], first["limit"]) == ("done", [], None)
    assert (first["host"], first["pid"]) == (os.uname().nodename, first["pid"])
    seconds = sum(
        row["seconds"] * (0.25 if row["stage"] in ("fetch", "inspect") else 1)
        for row in events_of(root)
        if row["run"] == first["run"]
    )
    assert first["spent"]["core_hours"] == pytest.approx(seconds / 3600, abs=2e-4)
    assert first["expected"]["core_hours"] > 0
    assert (second["command"], second["events"]) == ("lrm build --filters-only", {})
    (change,) = second["changes"]
    assert (change["name"], change["before"], change["after"]) == (
        *("filters.occupancy.min_share", 0.1),
        0.11,
    )
    assert first["settings"]["render"]["resolution"] == 40
    assert first["versions"]["inspect"] == "inspect/3"
    assert first["listing"] == {"new": 15}
    assert first["accepted"] == {"loss": None, "changes": []}
    assert third["listing"] == {}
    assert (third["limit"], third["rig"], third["pid"]) == (5, "lrm32", os.getpid())
    (change,) = third["changes"]
    assert (change["name"], change["before"], change["after"]) == (
        *("inspect.max_nodes", 20_000),
        9000,
    )
    assert change["again"].keys() == third["events"].keys() == {"inspect"}
    assert change["again"]["inspect"] == third["events"]["inspect"]["ok"]
    table = run_lrm("history", "--root", root)
    assert table.code == 0
    assert "filters.occupancy.min_share 0.1 → 0.11" in table.out
    assert "inspect.max_nodes 20000 → 9000" in table.out
    assert "9 kept" in table.out
    (line,) = (line for line in table.out.splitlines() if "settings: " in line)
    assert "render.resolution 40" in line
    assert "texture_size" not in line


def test_a_changed_listing_and_what_was_accepted_are_shown(root, tmp_path):
    """No object needs a stage, but that is not nothing."""
    source = shutil.copytree(json_of(root)["config"]["source"], tmp_path / "models")
    words = ["--root", root, "--source", source, "--address", "none", "--captions", "null"]
    words += ["--accept-loss", "1", "--accept-changes", "captions"]
    assert run_lrm("build", *words).code == 0
    last = builds(root)[-1]
    assert last["objects"] == {}
    assert last["listing"]["dropped"] > 0
    assert last["accepted"] == {"loss": 1.0, "changes": ["captions"]}
    text = run_lrm("history", "--root", root).out
    assert "accepted: a loss of 1, changes of captions" in text
    assert f"{last['listing']['dropped']} newly dropped" in text
    assert "nothing to do" not in text


def test_filters_only_lists_what_it_drops(root):
    filters = ["--filters-only", "--filters.occupancy.min-share", "0.99"]
    answer = run_lrm("build", "--root", root, *filters)
    assert answer.code == 0
    assert "9 objects will be dropped" in answer.err
    assert "filters.occupancy.min_share 0.1 → 0.99: 9 objects newly dropped" in answer.err
    last = builds(root)[-1]
    assert (last["listing"], last["changes"][0]["dropped"]) == ({"dropped": 9}, 9)


def test_a_compaction_is_no_build_and_costs_nothing(root):
    """It repeats the events of the objects whose samples it deletes."""
    filters = ["--filters-only", "--filters.occupancy.min-share", "0.99"]
    assert run_lrm("build", "--root", root, *filters).code == 0
    rows, status = builds(root), run_lrm("status", "--root", root, "--json").json()
    events = len(events_of(root))
    assert run_lrm("compact", "--root", root).code == 0
    assert {row["stage"] for row in events_of(root)[events:]} == {"pack", "render"}
    assert builds(root) == rows
    after = run_lrm("status", "--root", root, "--json").json()
    assert after["cost"] == status["cost"]
    # Their measurements stay, for the estimate of the next build.
    assert all(row["seconds"] for row in events_of(root)[events:] if row["stage"] == "render")


def test_a_build_that_leaves_objects_undone_is_incomplete(root):
    with recorded(Storage(str(root)), "lrm build", {}) as record:
        record["error"] = "3 objects left undone: disk_full 3"
    assert builds(root)[-1]["state"] == "incomplete"
    assert "incomplete: 3 objects left undone" in run_lrm("history", "--root", root).out


def test_a_refused_build_and_a_plan_are_no_rows(root):
    before = builds(root)
    words = ["--root", root, "--render.resolution", "64", "--blender.threads", "65536"]
    assert run_lrm("build", *words, "--address", "none").code == 2
    assert run_lrm("plan", *words).code == 2
    assert builds(root) == before


@pytest.mark.parametrize(
    ("error", "state", "text"),
    [
        (WorkFailed("the store failed\nmore"), "failed", "the store failed"),
        (OSError(28, "No space left on device"), "failed", "[Errno 28] No space left on device"),
        (Stopped("stopped on request"), "stopped", "stopped on request"),
        (KeyboardInterrupt(), "stopped", "interrupted"),
        (BadInput("/x: cannot write here"), "refused", "/x: cannot write here"),
    ],
)
def test_how_a_build_ended(root, error, state, text):
    storage = Storage(str(root))
    with pytest.raises(type(error)), recorded(storage, "lrm build", {"rig": "lrm32"}):
        raise error
    last = builds(root)[-1]
    assert (last["state"], last["error"]) == (state, text)
    assert last["started"] < last["ended"]
    assert f"{state}: {text}" in run_lrm("history", "--root", root).out


def test_a_running_build_and_a_killed_one(root):
    storage = Storage(str(root))
    child = os.fork()
    if child == 0:
        block = recorded(storage, "lrm build", {})
        block.__enter__()
        os._exit(9)
    os.waitpid(child, 0)
    with exclusive_lock(storage, "lrm build"), recorded(storage, "lrm build", {}):
        killed, running = builds(root)[-2:]
        assert [(row["state"], row["ended"]) for row in (killed, running)] == [
            *(("stopped", None), ("running", None)),
        ]
        assert "running" in run_lrm("history", "--root", root).out
    assert [row["state"] for row in builds(root)[-2:]] == ["stopped", "done"]


def test_builds_of_an_earlier_version_are_known_from_their_events(root):
    assert run_lrm("retry", "--root", root, "--kind", "malformed").code == 0
    shutil.rmtree(root / "builds")
    (build,) = builds(root)
    assert (build["state"], build["user"], build["spent"]["core_hours"]) == ("unknown", None, None)
    assert build["events"]["render"] == {"ok": 9}
    assert "render 9" in run_lrm("history", "--root", root).out


def test_a_damaged_record_hides_no_other(root):
    (root / "builds" / "20260101T000000Z-x.json").write_text("{")
    (root / "builds" / "20260102T000000Z-y.json").write_text(json.dumps({"started": "2026-01-02"}))
    first, second = builds(root)
    assert (first["started"], first["user"]) == ("2026-01-02", None)
    assert second["state"] == "done"


def test_maintenance_leaves_the_records(root):
    files = sorted((root / "builds").iterdir())
    assert run_lrm("verify", "--root", root).code == 0
    assert run_lrm("compact", "--root", root).code == 0
    assert sorted((root / "builds").iterdir()) == files
