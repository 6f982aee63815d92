"""A built dataset, made once for all tests of this folder."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from dataset.catalog import Catalog
from dataset.storage import Storage
from pipelines.demo_source import CAPTIONS_FILE, write_demo_source

# As small as it can be and still be a picture; one sample per shard group of three.
QUICK = ["--render.resolution", "40", "--render.samples", "1", "--shards.samples-per-shard", "4"]
REPOSITORY = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Answer:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


def run_lrm(*words: Any, **environment: str) -> Answer:
    """Run `lrm` as a user would, from another folder than the repository."""
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200", **environment},
        cwd="/",
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def events_of(root: Path) -> list[dict[str, Any]]:
    """All events of a dataset, in their order."""
    batches = Catalog(Storage(str(root))).since(0)
    return sorted(
        (row for batch in batches for row in batch.to_pylist()), key=lambda row: row["seq"]
    )


@pytest.fixture(scope="session")
def lrm() -> Callable[..., Answer]:
    return run_lrm


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all test processes share."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


def made_once(folder: Path, make: Callable[[], None]) -> None:
    """Have the first process that comes make it; others wait."""
    with FileLock(f"{folder}.lock"):
        if not folder.with_suffix(".made").exists():
            make()
            folder.with_suffix(".made").touch()


@pytest.fixture(scope="session")
def demo_source(common: Path) -> Path:
    """The project's own mirror."""
    folder = common / "source"
    made_once(folder, lambda: write_demo_source(folder))
    return folder


@dataclass(frozen=True)
class Built:
    """A dataset and the words that built it."""

    root: Path
    source: Path

    @property
    def words(self) -> list[str]:
        captions = str(self.source / CAPTIONS_FILE)
        return ["--source", str(self.source), "--captions", captions, *QUICK]


@pytest.fixture(scope="session")
def built(demo_source: Path, common: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The demo source built on a local Ray, this process's copy. Tests must not change it."""
    first = Built(common / "built", demo_source)

    def build() -> None:
        answer = run_lrm("build", *first.words, "--root", first.root)
        assert answer.code == 0, answer.err

    made_once(first.root, build)
    own = Built(tmp_path_factory.mktemp("dataset") / "root", demo_source)
    shutil.copytree(first.root, own.root)
    return own
