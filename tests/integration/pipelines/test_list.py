"""`lrm list`: objects by state, reason, failure kind and measurement, and what reads its output."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from core.failures import FailureKind
from dataset.catalog.event_log import Catalog
from dataset.root import open_root
from pipelines.building.dataset_status import load_dataset_state
from pipelines.building.projection import all_columns
from pipelines.selection.decided_columns import DECIDED
from tests.support.datasets import BuiltDataset
from tests.support.lrm import Answer, run_lrm
from tests.support.paths import REPOSITORY


def lrm_list(dataset: BuiltDataset, *words: Any) -> Answer:
    return run_lrm("list", "--root", dataset.root, *words)


def ids(dataset: BuiltDataset, *words: Any) -> list[str]:
    answer = lrm_list(dataset, *words)
    assert (answer.code, answer.err) == (0, "")
    return answer.out.splitlines()


def rows(dataset: BuiltDataset, *words: Any) -> dict[str, dict[str, Any]]:
    found = lrm_list(dataset, *words, "--json").json()
    return {row["asset_id"]: row for row in found}


def inspected(dataset: BuiltDataset, asset_id: str) -> dict[str, Any]:
    return run_lrm("inspect", "--root", dataset.root, asset_id, "--json").json()


def refusal(dataset: BuiltDataset, *words: Any) -> str:
    answer = lrm_list(dataset, *words)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    return answer.err.removeprefix("lrm list: error: ").rstrip("\n")


@pytest.fixture
def copied(built_dataset: BuiltDataset, tmp_path: Path) -> BuiltDataset:
    """Return a copy of the dataset that a test may change."""
    copy = BuiltDataset(tmp_path / "root", built_dataset.source)
    shutil.copytree(built_dataset.root, copy.root)
    return copy


def test_the_ids_of_states_reasons_and_kinds_are_those_of_the_status(built_dataset: BuiltDataset):
    status = run_lrm("status", "--root", built_dataset.root, "--json").json()
    everything = ids(built_dataset)
    assert everything == sorted(everything)
    by_state = {
        state: ids(built_dataset, "--state", state)
        for state in ("kept", "dropped", "failed", "pending")
    }
    assert sorted(sum(by_state.values(), [])) == everything
    assert len(by_state["kept"]) == status["kept"]
    for option, counts in (("--reason", status["dropped"]), ("--kind", status["failed"])):
        assert {name: len(ids(built_dataset, option, name)) for name in counts} == counts


def test_the_usual_columns_are_those_of_inspect(built_dataset: BuiltDataset):
    found = rows(built_dataset)
    assert found.keys() == set(ids(built_dataset))
    for asset_id, row in found.items():
        report = inspected(built_dataset, asset_id)
        assert row["state"] == report["state"]
        verdict = next(iter(report["dropped"]), None) or dict.fromkeys(
            ("reason", "measured", "limit")
        )
        assert {name: row[name] for name in ("reason", "measured", "limit")} == {
            name: verdict[name] for name in ("reason", "measured", "limit")
        }
        failure = report["failed"] or {"kind": None, "message": None}
        assert {name: row[name] for name in ("kind", "message")} == {
            name: failure[name] for name in ("kind", "message")
        }
        if report["failed"]:
            assert row["stage"] == failure["stage"]
        if row["reason"] == "low_occupancy":
            assert row["stage"] in ("measure", "render")
        assert row["state"] != "kept" or row["stage"] is None


def test_every_column_can_be_listed_in_every_format(built_dataset: BuiltDataset, tmp_path: Path):
    names = ["asset_id", *DECIDED, *(column.key for column in all_columns())]
    words = ["--columns", ",".join(names)]
    expected = rows(built_dataset, *words)
    dataset_state = load_dataset_state(open_root(str(built_dataset.root)))
    for state in dataset_state.objects.states(np.arange(len(dataset_state.objects))):
        row = expected[state.asset_id]
        stored = {name: value for name, value in row.items() if "." in name and value is not None}
        plans = {name for name in stored if name.rpartition(".")[2] not in ("timings", "message")}
        assert {name: stored[name] for name in plans} == {
            name: value for name, value in state.row.items() if name != "asset_id"
        }
        assert row["render.timings"] is None or row["render.timings"]["colour"] > 0
    table = list(
        csv.DictReader(io.StringIO(lrm_list(built_dataset, *words, "--format", "csv").out))
    )
    assert [row["asset_id"] for row in table] == list(expected)
    assert list(table[0]) == names
    for row in table:
        tags = expected[row["asset_id"]]["list.tags"]
        assert json.loads(row["list.tags"]) == tags
        assert row["pack.shard"] == (expected[row["asset_id"]]["pack.shard"] or "")
    file = tmp_path / "objects.parquet"
    with open(file, "wb") as out:
        command = [sys.executable, "-m", "pipelines.cli", "list", "--root", built_dataset.root]
        subprocess.run(
            [*command, *words, "--format", "parquet"], stdout=out, cwd=REPOSITORY, check=True
        )
    stored_table = pq.read_table(file)
    assert stored_table.column_names == names
    assert stored_table["list.tags"].to_pylist() == [row["list.tags"] for row in expected.values()]
    text = lrm_list(built_dataset, *words).out.splitlines()
    assert text[0].split() == names
    assert [line.split()[0] for line in text[1:]] == list(expected)


def test_short_names_and_both_spellings_name_columns(built_dataset: BuiltDataset):
    found = rows(built_dataset, "--columns", "asset_id, license,caption,list.licence")
    assert all(
        list(row) == ["asset_id", "license", "caption", "list.licence"] for row in found.values()
    )
    assert all(row["license"] == row["list.licence"] for row in found.values())
    assert {row["license"] for row in found.values()} >= {"cc0"}


def test_a_condition_reads_measurements_and_states(built_dataset: BuiltDataset):
    measured = rows(built_dataset, "--columns", "asset_id,state,measure.thickness,licence")
    expected = [
        asset_id
        for asset_id, row in measured.items()
        if (row["measure.thickness"] or 0) > 0.3 and row["licence"] == "cc0"
    ]
    assert expected
    where = "measure.thickness > 0.3 and license = 'cc0'"
    assert ids(built_dataset, "--where", where) == expected
    both = ids(built_dataset, "--where", f"{where} and state = 'kept'")
    assert both == ids(built_dataset, "--where", where, "--state", "kept")
    assert both == [one for one in expected if measured[one]["state"] == "kept"]
    low = ids(built_dataset, "--where", "measured::DOUBLE < 0.1", "--reason", "low_occupancy")
    assert low == ids(built_dataset, "--reason", "low_occupancy")


def test_nothing_found_is_no_error(built_dataset: BuiltDataset):
    nothing = ["--where", "false"]
    assert ids(built_dataset, *nothing) == []
    assert lrm_list(built_dataset, *nothing, "--json").json() == []
    assert (
        lrm_list(built_dataset, *nothing, "--columns", "asset_id,state").out == "asset_id  state\n"
    )
    assert lrm_list(built_dataset, *nothing, "--format", "csv").out.startswith("asset_id,state,")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("--state keep", ["--state 'keep' does not exist; did you mean 'kept'?", "dropped"]),
        ("--reason low_ocupancy", ["did you mean 'low_occupancy'? there are: low_occupancy ("]),
        ("--reason x", ["there are: ", "removed", "no_caption (", "age_restricted"]),
        ("--kind malformd", ["did you mean 'malformed'? there are: malformed (1)", "timeout"]),
        ("--columns captoin", ["--columns: column 'captoin'", "did you mean 'list.caption'?"]),
        ("--columns bytes", ["several columns are called 'bytes': fetch.bytes, render.bytes"]),
        (
            "--columns state,",
            ["column '' does not exist; there are: asset_id, state", "STAGE.kind"],
        ),
        ("--where lisence='by'", ["did you mean 'list.licence'? there are: list.licence, "]),
        (
            '--where caption="mug"',
            ["there is no column \"mug\", and text needs single quotes: 'mug'"],
        ),
        ("--where licence=", ["--where 'licence=' is not a valid condition"]),
        ("--format tsv", ["--format 'tsv' does not exist;", "there are:", "csv"]),
        ("--format ids --columns state", ["--format ids prints no columns"]),
        ("--format csv --json", ["--json is --format json"]),
        ("--state kept --reason no_caption", ["--reason selects dropped objects"]),
        ("--state dropped --kind timeout", ["--kind selects failed objects"]),
        ("--reason no_caption --kind timeout", ["not both"]),
    ],
)
def test_an_unknown_name_is_refused_with_those_there_are(
    built_dataset: BuiltDataset, words: str, parts: list[str]
):
    line = refusal(built_dataset, *words.split())
    assert [part for part in parts if part not in line] == []


def test_what_exists_but_has_no_object_is_an_empty_list(built_dataset: BuiltDataset):
    assert ids(built_dataset, "--kind", FailureKind.TIMEOUT) == []
    assert ids(built_dataset, "--reason", "age_restricted") == []
    assert ids(built_dataset, "--reason", "maybe_several_objects") == []


def test_a_reason_is_found_by_the_name_that_the_status_shows(built_dataset: BuiltDataset):
    """Status, inspect and the table show `multi-object`; stored and in JSON is another name."""
    stored = ids(built_dataset, "--reason", "several_objects")
    assert ids(built_dataset, "--reason", "multi-object") == stored
    words = ["--reason", "multi-object", "--columns", "asset_id,reason"]
    assert {line.split()[-1] for line in lrm_list(built_dataset, *words).out.splitlines()[1:]} == (
        {"multi-object"} if stored else set()
    )
    assert {row["reason"] for row in rows(built_dataset, *words).values()} <= {"several_objects"}
    assert "did you mean 'multi-object'?" in refusal(built_dataset, "--reason", "multi-objec")


@pytest.mark.parametrize("command", ["remove", "retry", "inspect"])
def test_an_empty_list_of_objects_is_no_error(copied: BuiltDataset, tmp_path: Path, command: str):
    (tmp_path / "ids").write_text("")
    before = Catalog(open_root(str(copied.root))).last_seq()
    answer = run_lrm(command, "--root", copied.root, "--from", tmp_path / "ids")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("0 ")
    assert "tries again" not in answer.out
    json_answer = run_lrm(command, "--root", copied.root, "--from", tmp_path / "ids", "--json")
    assert json_answer.code == 0
    assert not any(json_answer.json() if command == "inspect" else json_answer.json().values())
    assert Catalog(open_root(str(copied.root))).last_seq() == before
    nothing = run_lrm(command, "--root", copied.root)
    assert (nothing.code, nothing.err.count("\n")) == (2, 1)


def test_the_list_is_piped_into_remove(copied: BuiltDataset):
    low = ids(copied, "--reason", "low_occupancy")
    lrm, root = f"{sys.executable} -m pipelines.cli", f"--root '{copied.root}'"
    listing = f"{lrm} list {root} --state dropped --reason low_occupancy"
    pipe = f"{listing} | {lrm} remove {root} --from - --reason small"
    words = ["bash", "-o", "pipefail", "-c", pipe]
    result = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY)
    assert (result.returncode, result.stderr) == (0, "")
    removed = rows(copied, "--reason", "removed")
    assert list(removed) == low
    assert {(row["stage"], row["message"], row["limit"]) for row in removed.values()} == {
        ("remove", "small", None)
    }


def test_inspect_and_retry_read_the_list(copied: BuiltDataset, tmp_path: Path):
    file = tmp_path / "ids.txt"
    file.write_text(lrm_list(copied, "--kind", "malformed").out)
    (failed,) = ids(copied, "--kind", "malformed")
    words = ["--root", copied.root, "--from", file, "--json"]
    # An array, however many objects the file has.
    assert run_lrm("inspect", *words).json() == [inspected(copied, failed)]
    assert run_lrm("retry", *words).json()["cleared"] == [failed]
    assert ids(copied, "--state", "pending") == [failed]
    assert rows(copied, "--columns", "asset_id,stage,why", "--state", "pending")[failed] == {
        "asset_id": failed,
        "stage": "fetch",
        "why": "retry",
    }


@pytest.mark.parametrize("command", ["inspect", "remove", "retry"])
def test_a_table_is_no_list_of_ids(copied: BuiltDataset, tmp_path: Path, command: str):
    for name in ("csv", "table", "json"):
        file = tmp_path / name
        file.write_text(lrm_list(copied, "--format", name).out)
        answer = run_lrm(command, "--root", copied.root, "--from", file)
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
        assert "line 1: this is the beginning of a table or of JSON" in answer.err


def test_bytes_that_are_no_text_are_refused(
    built_dataset: BuiltDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As in `lrm list --format parquet | lrm remove --from -`."""
    file = tmp_path / "objects.parquet"
    file.write_bytes(b"PAR1\xff\xfe")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes()), "utf-8"))
    for name in ("-", file):
        answer = run_lrm("remove", "--root", built_dataset.root, "--from", name)
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
        assert f"--from {name}: cannot read the list: 'utf-8' codec" in answer.err


def test_every_command_finds_an_object_without_its_source(copied: BuiltDataset, tmp_path: Path):
    asset_id = ids(copied, "--state", "kept")[0]
    uid = asset_id.removeprefix("objaverse:")
    assert inspected(copied, uid) == inspected(copied, asset_id)
    file = tmp_path / "ids.txt"
    file.write_text(f"{uid}  # asked by its author\n")
    words = ["--root", copied.root, "--from", file, "--json"]
    assert run_lrm("remove", *words).json()["removed"] == [asset_id]
    assert run_lrm("remove", *words, "--undo", uid, asset_id).json()["restored"] == [asset_id]
    assert run_lrm("retry", *words).json()["unchanged"] == [asset_id]


def test_several_objects_are_inspected_at_once(built_dataset: BuiltDataset, tmp_path: Path):
    kept = ids(built_dataset, "--state", "kept")[:2]
    words = ["inspect", "--root", built_dataset.root, *kept]
    assert run_lrm(*words, "--json").json() == [inspected(built_dataset, one) for one in kept]
    printed = run_lrm(*words).out.splitlines()
    assert [line.split()[0] for line in printed if line[0] != " "] == kept
    answer = run_lrm(*words, "--sheet", tmp_path / "sheet.png")
    assert (answer.code, answer.out) == (2, "")
    assert "--sheet shows one object, but 2 were given" in answer.err


def test_an_unknown_failure_kind_clears_nothing(built_dataset: BuiltDataset):
    answer = run_lrm("retry", "--root", built_dataset.root, "--kind", "time_out")
    assert (answer.code, answer.out) == (2, "")
    assert "--kind 'time_out' does not exist; did you mean 'timeout'?" in answer.err
    assert "malformed (1)" in answer.err
