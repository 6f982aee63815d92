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
from pipelines.cli.tables import minute

__all__ = ["COMMAND"]

_CHANGE = ("name", "before", "after")


def _run(arguments: argparse.Namespace) -> int:
    """Print the builds, oldest first."""
    from pipelines.building.records.history import history

    builds = history(open_root(arguments.root))
    if arguments.json:
        print(json.dumps({"builds": builds}))
    elif builds:
        _show(builds)
    else:
        print("no build yet")
    return 0


def _show(builds: Sequence[Mapping[str, Any]]) -> None:
    for number, build in enumerate(builds):
        by = "" if build["user"] is None else f"{build['user']}@{build['host']} ({build['pid']})"
        rig = "" if build["rig"] is None else f"rig {build['rig']}"
        heading = [minute(build["started"]), _took(build), by, rig]
        lines = ["  ".join(filter(None, heading)), f"  {_result(build)}{_hours(build)}"]
        settings = [] if number else _settings(build)
        lines += [f"  {line}" for line in [*settings, *_changes(build), *_accepted(build)]]
        print(printable("\n".join(lines)))


def _hours(build: Mapping[str, Any]) -> str:
    """Return the hours that a build spent and those that it was expected to spend."""
    texts = []
    for kind, title in (("core_hours", "core-hours"), ("gpu_hours", "GPU-hours")):
        spent, expected = build["spent"][kind], build["expected"][kind]
        if spent or expected:
            texts.append(f"{amount(spent or 0)} {title} (expected {amount(expected or 0)})")
    return "".join(f"; {text}" for text in texts)


def _took(build: Mapping[str, Any]) -> str:
    """Return how long a build took; its state if it has not ended by itself."""
    if build["ended"] is None:
        return str(build["state"])
    started, ended = (datetime.fromisoformat(build[name]) for name in ("started", "ended"))
    return short_duration((ended - started).total_seconds())


def _result(build: Mapping[str, Any]) -> str:
    """Return what a build did: objects by final state, or succeeded events by stage."""
    command = build["command"].removeprefix("lrm build").strip()
    parts = [command] if command else []
    if build["limit"]:
        parts.append(f"--limit {build['limit']}")
    if build["state"] in ("failed", "refused", "stopped", "incomplete"):
        parts.append(": ".join(filter(None, (build["state"], build["error"]))))
    listing = build["listing"] or {}
    for kind, count in listing.items():
        parts.append(
            f"{count:,} {'newly dropped' if kind == 'dropped' else kind.replace('_', ' ')}"
        )
    if build["objects"]:
        parts += [f"{count:,} {state}" for state, count in build["objects"].items()]
    elif build["objects"] is None:
        stages = {name: done.get("ok", 0) for name, done in build["events"].items()}
        parts += [f"{name} {count:,}" for name, count in stages.items() if count]
    return ", ".join(parts) or ("nothing to do" if build["state"] == "done" else "")


def _changes(build: Mapping[str, Any]) -> list[str]:
    """Return a line per changed setting or version."""
    from pipelines.building.guard.changes import change_text

    return [change_text(*(change[key] for key in _CHANGE)) for change in build["changes"]]


def _settings(build: Mapping[str, Any]) -> list[str]:
    """Return a line with the settings of a build that differ from their defaults."""
    from pipelines.building.guard.changes import value_text
    from pipelines.building.guard.remembered import settings_beside_defaults

    settings = settings_beside_defaults(build["settings"] or {})
    texts = [f"{path} {value_text(value)}" for path, value in settings.items()]
    return [f"settings: {', '.join(texts)}"] if texts else []


def _accepted(build: Mapping[str, Any]) -> list[str]:
    """Return a line with what a build was told to accept."""
    accepted = build["accepted"] or {}
    loss, changes = accepted.get("loss"), accepted.get("changes")
    texts = [] if loss is None else [f"a loss of {loss:g}"]
    texts += [f"changes of {', '.join(changes)}"] if changes else []
    return [f"accepted: {', '.join(texts)}"] if texts else []


COMMAND = Command(
    example="lrm history --root DATASET",
    options=add_root_options,
    run=_run,
)
