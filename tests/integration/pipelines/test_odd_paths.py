"""Folders with unusual names: each is used literally, or refused in one line."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dataset.root import open_root
from pipelines.building.dataset_status import load_dataset_state
from tests.support.datasets import QUICK, BuiltDataset
from tests.support.lrm import Answer, run_lrm
from tests.support.paths import REPOSITORY
from tests.support.small_glbs import pack_glb, textured_square

USABLE = [
    " x#y?z=1&w 50% %4 ",
    "*{000..002},'\"`$HOME;~",
    "~",
    "ünï 日本 e\N{COMBINING ACUTE ACCENT}\N{RIGHT-TO-LEFT OVERRIDE}",
    "file:a::b",
    "-dash",
]
REFUSED = [
    "[1]",
    "a|b",
    "a^b",
    "%41",
    "a%20b",
    "%2e%2E",
    "a\\b",
    "a\nb",
    "\x1b[2J",
    "\x7f",
    "\udcff",
]


def commands(dataset: BuiltDataset, asset_id: str, out: Path) -> list[list]:
    """Return a call of every command with a root, without `--root`."""
    return [
        ["plan", *dataset.words],
        ["build", *dataset.words],
        ["status"],
        ["list", "--where", "state = 'kept'"],
        ["inspect", asset_id],
        ["report", "--out", out / "report", "--thumbnails", 0],
        ["verify"],
        ["snapshot"],
        ["compact"],
        ["retry", "--kind", "malformed"],
        ["remove", asset_id],
        ["remove", asset_id, "--undo"],
    ]


@pytest.fixture
def asset_id(built_dataset: BuiltDataset) -> str:
    return next(load_dataset_state(open_root(str(built_dataset.root))).kept).asset_id


@pytest.mark.parametrize("name", USABLE)
def test_every_command_works_on_a_root_with_this_name(built_dataset, tmp_path, name, asset_id):
    root = tmp_path / name / "root"
    shutil.copytree(built_dataset.root, root)
    for words in commands(built_dataset, asset_id, tmp_path / name):
        answer = run_lrm(words[0], f"--root={root}", *words[1:])
        assert answer.code == 0, (words, answer.err)
    before, after = (
        run_lrm("status", "--json", f"--root={folder}").json()
        for folder in (built_dataset.root, root)
    )
    for count in ("listed", "kept", "dropped"):
        assert before[count] == after[count]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def assert_one_line(answer: Answer, code: int) -> None:
    assert (answer.code, answer.out, answer.err.count("\n")) == (code, "", 1), answer.err
    assert answer.err.rstrip("\n").isprintable()


@pytest.mark.parametrize("name", REFUSED)
def test_every_command_refuses_a_root_with_this_name(built_dataset, tmp_path, name, asset_id):
    (tmp_path / name).mkdir()
    for words in commands(built_dataset, asset_id, tmp_path):
        answer = run_lrm(words[0], f"--root={tmp_path / name}", *words[1:])
        assert_one_line(answer, 2)
        assert "contains" in answer.err
    assert [*tmp_path.rglob("*")] == [tmp_path / name]


def test_a_link_to_a_folder_with_such_a_name_is_refused(built_dataset, tmp_path):
    (tmp_path / "[1]").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "[1]")
    assert_one_line(run_lrm("build", *built_dataset.words, "--root", tmp_path / "link"), 2)
    assert not [*(tmp_path / "[1]").iterdir()]


def test_sources_captions_and_temporary_folders_may_have_any_printable_name(tmp_path):
    odd = tmp_path / "x [1]%41#a?b*{0..2}'\"\\ ü "
    (odd / "models").mkdir(parents=True)
    (odd / "models" / "[a]*.glb").write_bytes(pack_glb(*textured_square()))
    table = odd / "%41 #?.csv"
    table.write_text("path,caption\n[a]*.glb,a box\n")
    (odd / "tmp").mkdir()
    words = ["--source", odd / "models", "--captions", table, "--root", tmp_path / "root", *QUICK]
    answer = run_lrm("build", *words, "--json", TMPDIR=str(odd / "tmp"))
    assert answer.json()["listed"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {odd.name, "root"}


COMMITS = """
import sys
from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
for uri in sys.argv[1:]:
    root = Storage(uri)
    root.write("dataset.json", b"{}")
    for batch in (1, 2):
        Catalog(root).commit([Event(asset_id=str(batch), stage="fetch")], "run", batch)
    assert len(Catalog(root).history("2")) == 1
"""


def test_catalogs_in_a_bucket_are_below_their_roots(bucket):
    """Delta Lake blocks this process, which serves the bucket, so another one commits."""
    names = ["a b", "[1]|^\\", "#?&=+;", "*{0..2}'\"`<>", "ünï%", "~"]
    roots = [f"s3://{bucket.name}/{name}" for name in names]
    subprocess.run([sys.executable, "-c", COMMITS, *roots], check=True, cwd=REPOSITORY)
    keys = [item.key for item in bucket.objects.all()]
    assert {key.partition("/")[0] for key in keys} == set(names)
    logs = [key for key in keys if key.partition("/")[2].startswith("catalog/_delta_log/0")]
    assert len(logs) == 3 * len(names)


@pytest.mark.parametrize("name", ["%41", "a%20b", "a//b", "a/../b", "./a", "a\nb"])
def test_a_bucket_is_not_used_at_a_name_that_a_url_changes(bucket, built_dataset, name):
    root = f"s3://{bucket.name}/{name}"
    assert_one_line(run_lrm("build", *built_dataset.words, "--root", root), 2)
    assert not [*bucket.objects.all()]
