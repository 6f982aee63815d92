"""Every command on a root whose catalog or `latest/` is damaged, and after its repair."""

import contextlib
import itertools
import json
import shutil
from pathlib import Path

import pytest

from core.errors import Damaged
from core.storage import Storage
from dataset.catalog.event_log import Catalog
from pipelines.building.object_table import latest_of
from tests.support.damage import DAMAGES, damage
from tests.support.lrm import run_lrm
from tests.support.small_datasets import small_dataset

COMMANDS = [
    ("status",),
    ("history",),
    ("list",),
    ("inspect", "ID"),
    ("snapshot",),
    ("verify",),
    ("compact", "--dry-run"),
    ("retry", "--kind", "malformed"),
    ("remove", "ID"),
    ("repair", "--dry-run"),
]
ROOT_FILES = {
    "first commit": "catalog/_delta_log/00000000000000000000.json",
    "commit": "catalog/_delta_log/00000000000000000001.json",
    "last commit": "catalog/_delta_log/00000000000000000002.json",
    "events": "catalog/*.parquet",
    "index": "latest/index.json",
    "base": "latest/*-list.parquet",
    "catalog": "catalog",
    "latest": "latest",
}


def ids_of(root: Path) -> list[str]:
    return run_lrm("list", "--root", root).out.split()


@pytest.fixture(scope="module")
def small_root(tmp_path_factory) -> Path:
    """Return a dataset of events with base files and one removal."""
    dataset = small_dataset(tmp_path_factory.mktemp("small"))
    dataset.build()
    latest_of(dataset.root).update_base()
    folder = Path(dataset.root.uri)
    assert run_lrm("remove", "--root", folder, ids_of(folder)[0]).code == 0
    return folder


@pytest.mark.parametrize("file", ROOT_FILES)
def test_every_command_ends_with_one_line_and_repair_restores_all(small_root, tmp_path, file):
    expected = run_lrm("status", "--root", small_root, "--json").json()
    name = ids_of(small_root)[1]
    kinds = ["deleted"] if file in ("catalog", "latest") else list(DAMAGES)
    for kind, words in itertools.product(kinds, COMMANDS):
        folder = tmp_path / f"{kind}-{words[0]}"
        shutil.copytree(small_root, folder)
        path = next(iter(sorted(folder.glob(ROOT_FILES[file]))))
        damage(path, kind)
        words = [name if word == "ID" else word for word in words]
        answer = run_lrm(words[0], "--root", folder, *words[1:])
        assert answer.code in (0, 1, 2), (kind, words)
        errors = [line for line in answer.err.splitlines() if "error:" in line]
        assert len(errors) <= 1
        if words[0] == "remove" and answer.code == 0:
            with contextlib.suppress(Damaged):  # a file of other events
                assert Catalog(Storage(str(folder))).history(name)[-1].event.stage == "remove"
    if file != "catalog":
        for kind in kinds:
            folder = tmp_path / f"{kind}-status"
            assert run_lrm("repair", "--root", folder).code == 0
            status = run_lrm("status", "--root", folder, "--json")
            lost = run_lrm("verify", "--root", folder, "--json")
            assert status.code == 0
            if not json.loads(lost.out)["catalog"]["lost_before"]:
                assert status.json() == expected, kind
            assert "nothing to do" in run_lrm("repair", "--root", folder).out
