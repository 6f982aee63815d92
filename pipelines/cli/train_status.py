"""`lrm train --status DIR`: progress, speed and checkpoints of a training run."""

import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from core.errors import BadInput
from core.quantities import duration, short_duration, size
from core.storage import Storage
from pipelines.cli.tables import counted, make_table
from train.checkpoints.checkpoint import checkpoint_names, checkpoint_step, read_checkpoint
from train.monitoring.metrics_log import REPLACED, SKIPPED, VALIDATION, read_metrics
from train.monitoring.run_log import RUN_FILE

__all__ = ["run_status", "show_run_status"]

_RECENT = 20
"""Last steps whose median time is the current speed."""


def run_status(out: Path) -> dict[str, Any]:
    """Return the state of a run as plain values. Raises BadInput if there is no run."""
    try:
        run = json.loads((out / RUN_FILE).read_bytes())
    except (OSError, ValueError):
        raise BadInput(f"{out}: not the folder of a training run ({RUN_FILE} is missing)") from None
    config, rows = run["config"], read_metrics(out)
    last = rows[-1] if rows else None
    step, steps = (last["step"] if last else 0), config["steps"]
    seconds = statistics.median(row["seconds"] for row in rows[-_RECENT:]) if rows else None
    return {
        "out": str(out),
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
        "validation": next(iter(read_metrics(out, VALIDATION)[-1:]), None),
        "skipped": len(read_metrics(out, SKIPPED)),
        "replaced": len(read_metrics(out, REPLACED)),
        "checkpoints": _checkpoints(config, out),
    }


def _checkpoints(config: dict[str, Any], out: Path) -> list[dict[str, Any]]:
    storage = Storage(config["checkpoints"] or out / "checkpoints")
    rows = []
    for name in checkpoint_names(storage):
        checkpoint = read_checkpoint(storage, name)
        row: dict[str, Any] = {
            "step": checkpoint_step(name),
            "whole": checkpoint is not None and checkpoint.is_complete(),
        }
        if checkpoint is not None:
            num_bytes = sum(entry.bytes for entry in checkpoint.manifest.files.values())
            row |= {"workers": checkpoint.manifest.world_size, "bytes": num_bytes}
        rows.append(row)
    return rows


def show_run_status(status: dict[str, Any]) -> None:
    """Print the state of a run as lines and a table."""
    console = Console(highlight=False)
    for line in _lines(status):
        console.print(line, soft_wrap=True)
    table = make_table("checkpoints", [], ["step", "workers", "size", "complete"])
    for row in status["checkpoints"]:
        cells = [f"{row['step']:,}", str(row.get("workers", "")), size(row.get("bytes", 0))]
        table.add_row(*cells, "yes" if row["whole"] else "no")
    console.print(table if status["checkpoints"] else "no checkpoints yet")


def _lines(status: dict[str, Any]) -> Iterator[str]:
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
    if status["skipped"]:
        yield f"{counted(status['skipped'], 'skipped step')}, listed in skipped.jsonl"
    if status["replaced"]:
        yield f"{counted(status['replaced'], 'replaced sample')}, listed in replaced.jsonl"
    if status["validation"]:
        values = status["validation"]
        metrics = ", ".join(
            f"{name} {value:.4g}" for name, value in values.items() if name != "step"
        )
        yield f"validation at step {values['step']}: {metrics}"
