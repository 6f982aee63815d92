"""Sources with odd rows, and sources that become empty: every command still works."""

import csv
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.demo.demo_mirror import CAPTIONS_FILE
from tests.support.datasets import BuiltDataset
from tests.support.lrm import run_lrm


@pytest.fixture
def copied(built_dataset: BuiltDataset, tmp_path: Path) -> BuiltDataset:
    """Return a copy of the dataset and its source, which a test may change."""
    copy = BuiltDataset(tmp_path / "root", tmp_path / "source")
    shutil.copytree(built_dataset.root, copy.root)
    shutil.copytree(built_dataset.source, copy.source)
    return copy


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads(gzip.decompress(path.read_bytes()))
    change(values)
    path.write_bytes(gzip.compress(json.dumps(values).encode()))


def build(dataset: BuiltDataset, *words: str) -> dict[str, Any]:
    return run_lrm("build", *dataset.words, "--root", dataset.root, "--json", *words).json()


def test_an_object_with_an_unusable_annotation_fails_until_it_is_corrected(copied: BuiltDataset):
    before = build(copied)
    metadata = copied.source / "metadata/000-000.json.gz"
    uid = next(iter(json.loads(gzip.decompress(metadata.read_bytes()))))
    good = metadata.read_bytes()
    edit(metadata, lambda annotations: annotations[uid].update(license=5, tags=[None]))
    answer = run_lrm("build", *copied.words, "--root", copied.root, "--json")
    status = answer.json()
    problem = f"objaverse:{uid}: license is a number, not text; a tag is null, not text"
    assert answer.err.splitlines() == [
        "lrm build: warning: 1 listed object fails because the annotation cannot be used: "
        f"{problem}"
    ]
    assert status["failed"] == before["failed"] | {"bad_annotation": 1}
    parts = (sum(status["dropped"].values()), sum(status["failed"].values()))
    assert status["listed"] == before["listed"] == status["kept"] + sum(parts) + status["pending"]
    found = run_lrm("inspect", "--root", copied.root, f"objaverse:{uid}", "--json").json()
    assert (found["state"], found["failed"]["stage"]) == ("failed", "list")
    assert f"objaverse:{uid}: {found['failed']['message']}" == problem
    assert run_lrm("report", "--root", copied.root, "--out", copied.root.parent / "r").code == 0
    retried = run_lrm("retry", "--root", copied.root, "--kind", "bad_annotation", "--json").json()
    assert (retried["cleared"], retried["kinds"]["bad_annotation"]) == ([], 1)
    # Another caption, in a part that did not change, keeps the object failed.
    with open(copied.source / CAPTIONS_FILE, "a") as file:
        csv.writer(file, lineterminator="\n").writerow([uid, "another"])
    plan = run_lrm("plan", *copied.words, "--root", copied.root, "--json").json()
    listing = {name: plan["listing"][name] for name in ("changed", "gone", "failed")}
    assert (plan["work"], listing) == ({}, {"changed": 1, "gone": 0, "failed": 1})
    assert build(copied)["failed"] == status["failed"]
    metadata.write_bytes(good)
    after = build(copied)
    assert (after["kept"], after["failed"]) == (before["kept"], before["failed"])


def test_odd_rows_are_reported_and_skipped(copied: BuiltDataset):
    """Of the plan without them, only the skipped rows are missing."""
    captions = copied.source / CAPTIONS_FILE
    captions.write_bytes(b"\xef\xbb\xbf" + captions.read_bytes() + b'x y,1\r\n,"\r\n')
    edit(copied.source / "object-paths.json.gz", lambda paths: paths.update({"z": None}))
    edit(copied.source / "lvis-annotations.json.gz", lambda lvis: lvis.update({"z": None}))
    answer = run_lrm("plan", *copied.words, "--root", copied.root, "--json")
    plan = answer.json()
    assert [plan["listing"][name] for name in ("changed", "gone", "failed")] == [0, 0, 0]
    assert plan["work"] == {}
    assert [table["skipped"] for table in plan["skipped"]] == [1, 1, 2]
    warnings = answer.err.splitlines()
    assert [line.count("lrm plan: warning: ") for line in warnings] == [1, 1, 1]
    assert "z: None is not of the form glbs/FOLDER/FILE.glb" in warnings[0]
    assert "'x y' is not an id" in warnings[2]
    captions.write_text("".join(f"{number:032x},x\n" for number in range(9)))
    plan = run_lrm("plan", *copied.words, "--root", copied.root)
    assert plan.code == 2
    assert "are the ids in --captions those of the source?" in plan.err.splitlines()[-2]


def test_every_command_accepts_a_dataset_whose_listing_became_empty(copied: BuiltDataset):
    snapshot = run_lrm("snapshot", "--root", copied.root, "--json").json()["snapshot"]
    edit(copied.source / "object-paths.json.gz", dict.clear)
    accepted = ["--accept-loss", "1"]
    plan = run_lrm("plan", *copied.words, "--root", copied.root, "--json", *accepted).json()
    assert (plan["work"], plan["listing"]["gone"] > 0) == ({}, True)
    status = build(copied, *accepted)
    assert (status["listed"], status["kept"], status["pending"]) == (0, 0, 0)
    report = copied.root.parent / "report"
    for words, code in [
        (["status"], 0),
        (["status", "--json"], 0),
        (["report", "--out", report], 0),
        (["verify"], 0),
        (["retry", "--kind", "crash"], 0),
        (["snapshot"], 2),
        (["inspect", "objaverse:" + "0" * 32], 2),
        (["compact"], 2),
        (["compact", *accepted], 0),
        (["export", "--snapshot", snapshot, "--layout", "instantmesh", "--out", report], 0),
        (["build", *copied.words], 0),
        (["build", "--filters-only", "--filters.caption.enabled", "false"], 0),
    ]:
        answer = run_lrm(words[0], "--root", copied.root, *words[1:])
        assert answer.code == code, (words, answer.err)
