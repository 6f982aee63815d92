"""`lrm train --status DIR`: progress, speed and checkpoints of a training run."""

import logging
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from core.errors import BadInput
from core.quantities import duration, short_duration, size
from core.safe_text import printable
from pipelines.cli.tables import counted, make_table
from train.checkpoints.checkpoint import checkpoint_names, checkpoint_step, read_checkpoint
from train.checkpoints.checkpoint_paths import checkpoint_storage
from train.checkpoints.manifest import MANIFEST
from train.monitoring.metrics_log import METRICS, REPLACED, SKIPPED, VALIDATION, read_log
from train.monitoring.run_file import RUN_FILE, read_run
from train.monitoring.run_state import StateRecord, read_state

__all__ = ["run_status", "show_run_status"]

_log = logging.getLogger(__name__)

_RECENT = 20
"""Last steps whose median time is the current speed."""


def run_status(out: Path, *, verify: bool = False) -> dict[str, Any]:
    """Return the state of a run as plain values; `verify` reads and hashes every checkpoint.

    Raises BadInput if there is no run.
    """
    run, record = read_run(out), read_state(out)
    if run is None:
        raise BadInput(_no_run(out, record))
    config = run["config"]
    logs = {name: read_log(out, name) for name in (METRICS, VALIDATION, SKIPPED, REPLACED)}
    rows = logs[METRICS].rows
    last, steps = rows[-1] if rows else None, config["steps"]
    seconds = statistics.median(row["seconds"] for row in rows[-_RECENT:]) if rows else None
    checkpoints = _checkpoints(config, out, verify=verify)
    saved = checkpoints[0]["step"] if checkpoints else 0
    step = last["step"] if last else 0
    whole = next((row["step"] for row in checkpoints if row["whole"]), 0)
    if whole > step:
        _log.warning(
            "warning: %s: damaged: it ends at step %d, before the checkpoint of step %d",
            *(out / METRICS, step, whole),
        )
        step = whole
    return {
        "out": str(out),
        "recipe": run.get("recipe") or None,
        "state": _state(record, last, step, steps, saved),
        "message": record.message if record else "",
        "launcher": {"host": record.host, "pid": record.pid} if record else None,
        "step": step,
        "steps": steps,
        "done": step >= steps,
        "started": run["started"],
        "hosts": sorted(set(run["hosts"])),
        "workers": len(run["hosts"]),
        "silent_seconds": round(time.time() - last["time"], 1) if last else None,
        "seconds_per_step": seconds,
        "seconds_to_go": None if seconds is None else round((steps - step) * seconds, 1),
        "last": last,
        "validation": next(iter(logs[VALIDATION].rows[-1:]), None),
        "skipped": len(logs[SKIPPED].rows),
        "replaced": len(logs[REPLACED].rows),
        "damaged_lines": {name: log.damaged for name, log in logs.items() if log.damaged},
        "checkpoints": checkpoints,
    }


def _no_run(out: Path, record: StateRecord | None) -> str:
    """Return why a folder has no state to show."""
    if (record is not None and record.state == "done") or checkpoint_names(
        checkpoint_storage(out, None)
    ):
        return (
            f"{out}: {RUN_FILE} is missing; run the command of the training again, which writes it"
        )
    if record is None:
        return f"{out}: not the folder of a training run ({RUN_FILE} is missing)"
    state = "dead" if record.has_vanished() else record.state
    reason = f": {record.message}" if record.message else ""
    return f"{out}: no step was reached yet; the run is {state} ({record}){reason}"


def _state(
    record: StateRecord | None, last: Mapping[str, Any] | None, step: int, steps: int, saved: int
) -> str:
    """Return done, starting, running, stopped, failed, or dead (ended without recording its end).

    `last` is the last line of the metrics, `step` the last step. Versions that recorded no state
    saved a checkpoint of the last step when they were stopped.
    """
    if record is not None and record.is_active:
        if record.has_vanished():
            return "dead"
        # The launcher renews its record every ten seconds; the metrics are newer.
        return "running" if last and last["time"] > record.time else record.state
    if step >= steps:
        return "done"
    if record is None:
        return "stopped" if saved == step > 0 else "dead"
    return record.state


def _checkpoints(config: dict[str, Any], out: Path, *, verify: bool) -> list[dict[str, Any]]:
    storage = checkpoint_storage(out, config.get("checkpoints"))
    rows = []
    for name in checkpoint_names(storage):
        checkpoint = read_checkpoint(storage, name)
        row: dict[str, Any] = {
            "step": checkpoint_step(name),
            "whole": checkpoint is not None and checkpoint.is_complete(),
            "hashes": "not checked",
            "damaged": [],
        }
        if checkpoint is None:
            # Without a manifest the checkpoint is not finished, which is no damage.
            is_damaged = verify and storage.exists(f"{name}/{MANIFEST}")
            row["damaged"] = [MANIFEST] if is_damaged else []
            row["hashes"] = "cannot be checked" if is_damaged else "not checked"
        else:
            num_bytes = sum(entry.bytes for entry in checkpoint.manifest.files.values())
            row |= {"workers": checkpoint.manifest.world_size, "bytes": num_bytes}
            if verify:
                row["damaged"] = checkpoint.damaged_files()
                row["hashes"] = "differ" if row["damaged"] else "match"
        rows.append(row)
    return rows


def show_run_status(status: dict[str, Any]) -> None:
    """Print the state of a run as lines and a table."""
    console = Console(highlight=False)
    for line in _lines(status):
        console.print(Text(printable(line)), soft_wrap=True)
    table = make_table("checkpoints", [], ["step", "workers", "size", "complete", "hashes"])
    for row in status["checkpoints"]:
        cells = [f"{row['step']:,}", str(row.get("workers", "")), size(row.get("bytes", 0))]
        table.add_row(*cells, "yes" if row["whole"] else "no", row["hashes"])
    console.print(table if status["checkpoints"] else "no checkpoints yet")
    for row in status["checkpoints"]:
        if not row["whole"] and not row["damaged"]:
            line = f"step {row['step']:,}: incomplete; a resume skips it"
            console.print(line, soft_wrap=True)
        for name in row["damaged"]:
            line = f"step {row['step']:,}: {printable(name)} is missing or damaged"
            console.print(Text(line), soft_wrap=True)


def _lines(status: dict[str, Any]) -> Iterator[str]:
    launcher, reason = status["launcher"], status["message"]
    where = f"process {launcher['pid']} on {launcher['host']}" if launcher else ""
    yield {
        "done": "done",
        "starting": f"starting: {where}; no step has ended since its start",
        "running": f"running: {where}",
        "stopped": "stopped; the same command continues",
        "failed": f"failed: {reason}",
        "dead": f"dead: ended without recording why{where and f' ({where})'}; the same command "
        "continues from the newest checkpoint",
    }[status["state"]]
    last, step = status["last"], f"step {status['step']:,} of {status['steps']:,}"
    if last is None:
        yield step
    else:
        loss = last["loss"]
        yield f"{step}, loss {'not finite' if loss is None else f'{loss:.4f}'}"
        pace = (
            f"{status['seconds_per_step']:.2f} s per step on {counted(status['workers'], 'worker')}"
        )
        # Failed starts and repeated steps are the rest.
        yield f"{pace}, {100 * last['goodput']:.0f} % of the time was spent on steps that count"
        if not status["done"]:
            left = duration(status["seconds_to_go"])
            yield f"{left} left; last step {short_duration(status['silent_seconds'])} ago"
    started = status["started"][:19].replace("T", " ")
    yield f"last start {started} UTC on {', '.join(status['hosts'])}"
    for name, number in status["damaged_lines"].items():
        yield f"{counted(number, 'damaged line')} of {name} left out"
    if status["skipped"]:
        yield f"{counted(status['skipped'], 'skipped step')}, listed in skipped.jsonl"
    if status["replaced"]:
        yield f"{counted(status['replaced'], 'replaced sample')}, listed in replaced.jsonl"
    if status["validation"]:
        values = status["validation"]
        metrics = ", ".join(
            f"{name} {'not finite' if value is None else f'{value:.4g}'}"
            for name, value in values.items()
            if name != "step"
        )
        yield f"validation at step {values['step']}: {metrics}"
