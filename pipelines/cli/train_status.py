"""`lrm train --status DIR`: where a training run stands, and its checkpoints."""

import json
import statistics
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from core.errors import BadInput
from core.quantities import duration, short_duration, size
from core.storage import Storage
from pipelines.cli.tables import make_table
from train.checkpoints.checkpoint import checkpoint_names, checkpoint_step, read_checkpoint
from train.monitoring.metrics_log import REPLACED, SKIPPED, VALIDATION, read_metrics
from train.monitoring.run_log import RUN_FILE

__all__ = ["run_status", "show_run_status"]

_RECENT = 20
"""Steps that the present speed is the median of."""


def run_status(out: Path) -> dict[str, Any]:
    """Plain values for JSON. Raises BadInput if there is no run."""
    try:
        run = json.loads((out / RUN_FILE).read_bytes())
    except (OSError, ValueError):
        raise BadInput(f"{out}: no training run here ({RUN_FILE} is missing)") from None
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
    storage = Storage(config["checkpoints"] or str(out / "checkpoints"))
    found = []
    for name in checkpoint_names(storage):
        one = read_checkpoint(storage, name)
        row: dict[str, Any] = {
            "step": checkpoint_step(name),
            "whole": one is not None and one.is_complete(),
        }
        if one is not None:
            num_bytes = sum(entry.bytes for entry in one.manifest.files.values())
            row |= {"workers": one.manifest.world_size, "bytes": num_bytes}
        found.append(row)
    return found


def show_run_status(found: dict[str, Any]) -> None:
    """The same as lines and a table."""
    console = Console(highlight=False)
    last = found["last"]
    lines = [f"step {found['step']:,} of {found['steps']:,}"]
    if last is not None:
        loss = last["loss"]
        lines[0] += f", loss {'no number' if loss is None else f'{loss:.4f}'}"
        speed = f"{found['seconds_per_step']:.2f} s a step on {found['workers']} workers"
        lines.append(
            f"{speed}, {100 * last['goodput']:.0f} % of the time went into steps that count"
        )
        if not found["done"]:
            left = duration(found["seconds_to_go"])
            lines.append(f"{left} to go; last heard {short_duration(found['silent_seconds'])} ago")
    lines.append(f"last start {found['started'][:19]} on {', '.join(found['hosts'])}")
    if found["skipped"]:
        lines.append(f"{found['skipped']} steps were skipped: skipped.jsonl")
    if found["replaced"]:
        lines.append(f"{found['replaced']} damaged samples were met: replaced.jsonl")
    if found["validation"]:
        metrics = (f"{k} {v:.4g}" for k, v in found["validation"].items() if k != "step")
        lines.append(f"validation at step {found['validation']['step']}: {', '.join(metrics)}")
    for line in lines:
        console.print(line, soft_wrap=True)
    table = make_table("checkpoints", [], ["step", "workers", "bytes", "whole"])
    for row in found["checkpoints"]:
        cells = [f"{row['step']:,}", str(row.get("workers", "")), size(row.get("bytes", 0))]
        table.add_row(*cells, "yes" if row["whole"] else "no")
    console.print(table if found["checkpoints"] else "no checkpoint yet")
