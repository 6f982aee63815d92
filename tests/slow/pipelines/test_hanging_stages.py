"""A stage that never ends costs its object, and no other one, whatever it hangs in."""

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataset.root import open_root
from pipelines.building.dataset_status import load_dataset_state
from pipelines.building.stages.registry import STAGES
from tests.support.datasets import BuiltDataset, events_of
from tests.support.hanging_stage import HANGING
from tests.support.lrm import run_lrm


@pytest.fixture(autouse=True, scope="module")
def added() -> Iterator[None]:
    STAGES.add(HANGING)
    yield
    STAGES.remove(HANGING)


@pytest.fixture
def dataset(built_dataset: BuiltDataset, tmp_path: Path) -> BuiltDataset:
    """Return a finished dataset that was built without the stage."""
    shutil.copytree(built_dataset.root, tmp_path / "root")
    return BuiltDataset(tmp_path / "root", built_dataset.source)


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder for the ids of processes that stop; they are killed afterwards."""
    folder = tmp_path / "stopped"
    folder.mkdir()
    yield folder
    for path in folder.iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.name), signal.SIGKILL)


def test_only_the_objects_that_hang_fail(
    dataset: BuiltDataset, ray_address: str, stopped: Path
) -> None:
    ids = [state.asset_id for state in load_dataset_state(open_root(str(dataset.root))).kept]
    settings = {"sleeps": ids[:1], "locks": ids[1:2], "stops": ids[2:3], "folder": str(stopped)}
    words = [*dataset.words, "--root", dataset.root, "--stages", json.dumps({"hanging": settings})]
    status = run_lrm("build", *words, "--address", ray_address, "--json").json()
    assert len(list(stopped.iterdir())) == 1
    assert (status["kept"], status["failed"]["timeout"]) == (len(ids) - 3, 3)
    failed = {row["asset_id"]: row for row in events_of(dataset.root) if row["kind"] == "timeout"}
    assert sorted(failed) == sorted(ids[:3])
    assert {row["message"] for row in failed.values()} == {
        "hanging took more than 1 s, the limit of this stage"
    }
    # They are not tried again.
    assert run_lrm("plan", *words, "--json").json()["work"] == {}


def test_a_stage_that_hangs_in_this_process_ends(dataset: BuiltDataset, tmp_path: Path) -> None:
    ids = [state.asset_id for state in load_dataset_state(open_root(str(dataset.root))).kept]
    stages = json.dumps({"hanging": {"sleeps": ids[:1], "folder": str(tmp_path)}})
    answer = run_lrm("build", *dataset.words, "--root", dataset.root, "--stages", stages, "--json")
    assert answer.json()["kept"] == len(ids) - 1
    assert answer.json()["failed"]["timeout"] == 1
