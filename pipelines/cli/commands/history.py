"""`lrm history`: the builds of a dataset, with their changes and costs."""

import argparse
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from core.options import add_root_options
from core.quantities import amount, short_duration
from core.safe_text import printable
from dataset.root import open_root
from pipelines.cli.command import Command
from pipelines.cli.tables import make_table, minute

__all__ = ["COMMAND"]


def _run(arguments: argparse.Namespace) -> int:
    """Print one row per build, oldest first."""
    from pipelines.building.records.history import history

    builds = history(open_root(arguments.root))
    if arguments.json:
        print(json.dumps({"builds": builds}))
    else:
        _show(builds)
    return 0


def _show(builds: Sequence[Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if not builds:
        console.print("no build yet")
        return
    table = make_table(
        "builds", ["started", "took", "by", "rig", "result", "changes"], ["core-hours", "expected"]
    )
    for build in builds:
        by = "" if build["user"] is None else f"{build['user']}@{build['host']} ({build['pid']})"
        spent, expected = build["spent"]["core_hours"], build["expected"]["core_hours"]
        table.add_row(
            minute(build["started"]),
            _took(build),
            Text(printable(by)),
            build["rig"] or "",
            Text(printable(_result(build))),
            Text(printable(_changes(build))),
            "" if spent is None else amount(spent),
            "" if expected is None else amount(expected),
        )
    console.print(table)


def _took(build: Mapping[str, Any]) -> str:
    """Return how long a build took; its state if it has not ended by itself."""
    if build["ended"] is None:
        return str(build["state"])
    times = (datetime.fromisoformat(build[name]) for name in ("started", "ended"))
    started, ended = times
    return short_duration((ended - started).total_seconds())


def _result(build: Mapping[str, Any]) -> str:
    """Return what a build did: objects by final state, or succeeded events by stage."""
    command = build["command"].removeprefix("lrm build").strip()
    parts = [command] if command else []
    if build["limit"]:
        parts.append(f"--limit {build['limit']}")
    if build["state"] in ("failed", "stopped"):
        parts.append(": ".join(filter(None, (build["state"], build["error"]))))
    if build["objects"]:
        parts += [f"{count:,} {state}" for state, count in build["objects"].items()]
    elif build["objects"] is None:
        stages = {name: done.get("ok", 0) for name, done in build["events"].items()}
        parts += [f"{name} {count:,}" for name, count in stages.items() if count]
    return ", ".join(parts) or ("nothing to do" if build["state"] == "done" else "")


def _changes(build: Mapping[str, Any]) -> str:
    """Return the changed settings; the number of further ones after the first three."""
    lines = [
        f"{change['name']} {_text(change['before'])} → {_text(change['after'])}"
        for change in build["changes"]
    ]
    more = [f"and {len(lines) - 3} more"] if len(lines) > 3 else []
    return "\n".join([*lines[:3], *more])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


COMMAND = Command(
    example="lrm history --root DATASET",
    options=add_root_options,
    run=_run,
)
