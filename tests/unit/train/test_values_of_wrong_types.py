"""A value of a wrong type in a file of a run is damage: it is named, counted and never used."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from core.errors import LrmError
from pipelines.cli.train_status import run_status, show_run_status
from tests.support.checkpoints import settings
from tests.support.damages import copy_folder
from tests.support.run_files import write_run_files
from train.checkpoints.resuming import find_resumable
from train.loop.run_folder import check_run_folder
from train.monitoring.clock import Goodput
from train.monitoring.loggers.logger import LoggedStart
from train.monitoring.metrics_log import last_metrics, read_metrics
from train.monitoring.progress_line import progress_line
from train.monitoring.run_log import RunLog
from train.monitoring.run_metrics import collect_run_metrics
from train.monitoring.run_state import read_state
from train.resilience.damaged_samples import FaultCounter
from train.resilience.step_guard import StepGuard

LOGS = ("metrics.jsonl", "validation.jsonl", "skipped.jsonl", "replaced.jsonl")
MANIFEST = "checkpoints/step-00000004/manifest.json"
UNREAD: Mapping[str, Sequence[str]] = {
    "run.json": ("versions",),
    MANIFEST: ("zero_stage", "snapshot", "extra.position"),
}
"""Values that nothing reads, by file."""
SETTINGS = ("config", "config.steps", "config.checkpoints", "config.checkpoint_every")
"""The settings of `run.json` that are read. A digest protects those of a manifest."""
VALUES: Mapping[str, Any] = {
    "boolean": True,
    "text": "[/red] \x1b[31m",
    "number": 0.5,
    "list": [[]],
    "object": {"a": {}},
    "huge": 10**400,
    "infinite": math.inf,
    "not a number": math.nan,
}
MAY_BE = {str: "text", float: "number", type(None): "text"}
"""The kind of value that is right in the place of a value of a type."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("files") / "run"
    out.mkdir()
    write_run_files(out)
    return out


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the path of a value and of all values in it, and the values."""
    yield path, value
    if isinstance(value, dict | list):
        for name, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(below, (*path, name))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a copy of a value with another one at a path."""
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


def is_read(file: str, name: str) -> bool:
    if name.startswith("config."):
        return file == "run.json" and name in SETTINGS
    return not name.startswith(tuple(UNREAD.get(file, ["-"])))


def damages(run: Path, file: str) -> Iterator[tuple[str, bool, str]]:
    """Yield a name, whether the type is wrong, and the file's content with a changed value."""
    text = (run / file).read_text()
    *before, last = text.splitlines() if file in LOGS else [text]
    content = json.loads(last)
    for path, old in places(content):
        name = ".".join(map(str, path))
        for kind, value in VALUES.items() if is_read(file, name) else ():
            is_wrong = MAY_BE.get(type(old)) != kind or name == "state"
            line = json.dumps(changed(content, path, value))
            yield f"{name} is {kind}", is_wrong, "\n".join([*before, line, ""])


def show(out: Path) -> dict[str, Any]:
    """Show the state of a run as text and as JSON; return the latter."""
    status = run_status(out)
    show_run_status(status)
    return json.loads(json.dumps(status, allow_nan=False))


def resume(out: Path) -> None:
    """Read the files of a run as a start does, and those that it reads while it trains."""
    config = settings(out, steps=4, checkpoint_every=2)
    check_run_folder(config, lambda _: None)
    checkpoint = find_resumable(config)
    assert checkpoint is not None
    extra = checkpoint.manifest.extra
    StepGuard(config.guard, extra["guard"]).find_problem(0.5)
    FaultCounter(config.data_faults, 2, extra["faults"]).check(5, [])
    start = LoggedStart(out=out, first_step=4, logged_step=4, recipe="nerf", config={})
    assert start.find_id("wandb") is None or isinstance(start.find_id("wandb"), str)
    with RunLog(out, 4):
        Goodput(read_metrics(out)).add(1.0, 2e9)
    last = last_metrics(out)
    assert last is not None
    progress_line(last, config.steps)
    assert all(math.isfinite(one.value) for one in collect_run_metrics(out, 4, restarts=0))
    read_state(out)


@pytest.mark.parametrize(
    ("file", "use"),
    [
        ("loggers.json", resume),
        *itertools.product([*LOGS, "run.json", "run_state.json", MANIFEST], [show, resume]),
    ],
)
def test_damage_is_named_and_never_used(run, file, use, tmp_path, caplog, capsys):
    problems: list[str] = []
    assert show(run)["damaged_lines"] == {}
    # Each value gets two or three of the kinds, or one or two for a start, which takes longer.
    every = 3 if use is show else 7
    for number, (name, is_wrong, content) in enumerate([*damages(run, file)][::every]):
        out = copy_folder(run, tmp_path / str(number))
        (out / file).unlink()
        (out / file).write_text(content)
        caplog.clear()
        try:
            status = use(out)
            said = caplog.text
        except LrmError as error:
            status, said = None, str(error)
        except Exception as error:  # noqa: BLE001 - every other error is a problem to list
            problems.append(f"{name}: {error!r}")
            continue
        is_named = str(out / file) in said or (file == MANIFEST and "step-00000004" in said)
        if is_wrong and status and file in LOGS and status["damaged_lines"] != {file: 1}:
            problems.append(f"{name}: is not counted")
        if is_wrong and status and file == MANIFEST:
            is_named = not status["checkpoints"][0]["whole"]
        if is_wrong and not is_named:
            problems.append(f"{name}: is not named")
    assert "\x1b" not in capsys.readouterr().out
    assert not problems, "\n".join(problems)
