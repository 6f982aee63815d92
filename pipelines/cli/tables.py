"""Text output of commands on a dataset: its funnel, a plan, one object."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from core.failures import FailureKind
from core.quantities import amount, counted, duration, percent, size
from core.safe_text import printable

__all__ = [
    "counted",
    "make_table",
    "minute",
    "print_notes",
    "print_warnings",
    "show_object",
    "show_plan",
    "show_status",
    "status_view",
]

_PARTS_OF_COLOUR = {"sync", "sample", "denoise"}
_ENDS = {"incomplete": "is incomplete", "failed": "failed", "refused": "was refused"}
"""Ends of a build with an error, as verbs."""
_MAX_PARTS = 3
_MIN_PART = 0.05
"""Share of a stage's time below which a part is not shown."""


def show_status(summary: Mapping[str, Any]) -> None:
    """Print the JSON of `lrm status` as tables."""
    console = Console(highlight=False)
    for part in _status_parts(summary):
        console.print(part, soft_wrap=isinstance(part, str))


def status_view(summary: Mapping[str, Any]) -> Group:
    """Return what `show_status` prints, to be shown in place of an earlier status."""
    return Group(*_status_parts(summary))


def _status_parts(summary: Mapping[str, Any]) -> Iterator[Table | str]:
    """Yield the tables and the lines of a status, the most important first: a terminal is short."""
    yield _running(summary)
    yield from _throughput(summary)
    yield _funnel(summary)
    if summary["stages"]:
        yield _stages(summary["stages"])
        yield from _longest_parts(summary["stages"])
    sizes = ", ".join(f"{name} {size(count)}" for name, count in summary["bytes"].items())
    yield f"stored: {sizes}"
    yield from _cost(summary["cost"])


def _running(summary: Mapping[str, Any]) -> str:
    """Return a line that says which command writes to the dataset, or how the last build ended."""
    writer = summary["writer"]
    if writer is not None:
        command, user, host = (printable(writer[name]) for name in ("command", "user", "host"))
        by = f" by {user}" if user else ""
        where = f"(process {writer['pid']}, since {minute(writer['since'])})"
        return escape(f"running: {command}{by} on {host} {where}")
    state, note = summary["last_build"], ""
    if state == "stopped":
        note = "; the last one stopped before its end: the same command continues"
    elif state in _ENDS:
        note = f"; the last one {_ENDS[state]}: {printable(summary['last_error'])}"
    return escape(f"no build is running{note}")


def show_plan(plan: Mapping[str, Any], notes: Sequence[str]) -> None:
    """Print the notes on the listing, then the JSON of `lrm plan` as tables and a line."""
    console = Console(highlight=False)
    for note in notes:
        console.print(Text(printable(note)), soft_wrap=True)
    if not plan["work"]:
        is_changed = notes or plan["listing"]["changed"]
        console.print("no object needs a stage" if is_changed else "nothing to do")
        return
    table = make_table("next stage per object", ["stage", "reason"], ["objects"])
    for stage, reasons in plan["work"].items():
        for why, count in reasons.items():
            table.add_row(stage, why, f"{count:,}")
    console.print(table)
    table = make_table("estimate", ["stage"], ["objects", "core-hours", "GPU-hours", "bytes"])
    for stage, cost in plan["estimate"]["stages"].items():
        hours = [amount(cost[name]) for name in ("core_hours", "gpu_hours")]
        table.add_row(stage, _whole(cost["objects"]), *hours, size(cost["bytes"]))
    console.print(table)
    console.print(f"in total about {_amounts(plan['estimate'])}", soft_wrap=True)


def print_warnings(command: str, warnings: Sequence[str]) -> None:
    """Print warnings of a command on standard error, one line each."""
    for warning in warnings:
        line = printable(warning).replace("\n", " ")
        print(f"lrm {command}: warning: {line}", file=sys.stderr)


def print_notes(command: str, notes: Sequence[str]) -> None:
    """Print what a command is about to change on standard error, one line each."""
    for note in notes:
        print(f"lrm {command}: {printable(note)}", file=sys.stderr)


def show_object(state: Mapping[str, Any]) -> None:
    """Print the JSON of `lrm inspect` as lines."""
    from filters.chain import filter_title, reason_title, value_text

    lines = [f"{state['asset_id']}  {state['record']['name']!r}: {state['state']}"]
    for verdict in state["dropped"]:
        name = verdict["filter"]
        title, reason = filter_title(name), reason_title(verdict["reason"])
        line = f"  dropped by {title}" + ("" if reason == title else f": {reason}")
        detail, limit = (value_text(name, verdict[key]) for key in ("measured", "limit"))
        if limit != "none":
            detail = f"measured: {detail}; limit: {limit}"
        lines.append(f"{line} ({detail})" if detail else line)
    if state["failed"]:
        failure = state["failed"]
        lines.append(f"  failed in {failure['stage']}: {failure['kind']}: {failure['message']}")
        lines += [f"  what to do: {kind.remedy}" for kind in FailureKind if kind == failure["kind"]]
    for event in state["events"]:
        what = f"{event['stage']:<8} {event['status']:<7} {event['seconds']:.2f} s"
        lines.append(f"  {event['time'][:19]}  {what}")
    lines += [f"  views: {sample['shard']} ({sample['key']})" for sample in state["samples"]]
    console = Console(highlight=False)
    for line in lines:
        console.print(Text(printable(line)), soft_wrap=True)


def _funnel(summary: Mapping[str, Any]) -> Table:
    from filters.chain import reason_title

    listed = summary["listed"]
    table = make_table("funnel", ["state", "reason"], ["objects", "of listed"])

    def add(state: str, reason: str, count: int) -> None:
        table.add_row(state, Text(printable(reason)), f"{count:,}", percent(count, listed))

    add("listed", "", listed)
    for reason, count in summary["dropped"].items():
        add("dropped", reason_title(reason), count)
    for kind, count in summary["failed"].items():
        add("failed", kind, count)
    add("pending", "", summary["pending"])
    add("kept", "", summary["kept"])
    if summary["unsure"]:
        add("", "of which uncertain", summary["unsure"])
    return table


def _stages(stages: Mapping[str, Mapping[str, Any]]) -> Table:
    numbers = ["objects done", "worker time", "seconds per object"]
    table = make_table("stages (time summed over workers)", ["stage"], numbers)
    for stage, values in stages.items():
        done, seconds = values["done"], values["seconds"]
        each = f"{seconds / done:.2f}" if done else ""
        table.add_row(stage, f"{done:,}", duration(seconds), each)
    return table


def _longest_parts(stages: Mapping[str, Mapping[str, Any]]) -> Sequence[str]:
    """Return a line for every stage with timed parts: the longest, in per cent of its time."""
    from pipelines.building.stages.part_titles import part_title

    lines = []
    for stage, values in stages.items():
        seconds, parts = values["seconds"], dict(values["parts"])
        if _PARTS_OF_COLOUR & parts.keys():
            parts.pop("colour", None)  # their sum
        longest = [
            f"{part_title(part)} {100 * spent / seconds:.0f} %"
            for part, spent in sorted(parts.items(), key=lambda item: -item[1])[:_MAX_PARTS]
            if spent > _MIN_PART * seconds
        ]
        if longest:
            lines.append(f"{stage}: {', '.join(longest)}")
    return lines


def _throughput(summary: Mapping[str, Any]) -> list[str]:
    recent = summary["throughput"]
    if recent is None:
        return []
    rate = f", {recent['per_hour']:,.0f} per hour" if recent["per_hour"] else ""
    objects = counted(recent["objects"], "object")
    lines = [f"recent work: {objects}{rate}, until {_time(recent['ended'])}"]
    if summary["pending"]:
        pending, left = counted(summary["pending"], "object"), summary["seconds_to_go"]
        known = "" if left is None else f", {duration(left)} left at the speed of that work"
        lines.append(f"pending: {pending}{known}")
    return lines


def _cost(cost: Mapping[str, Any] | None) -> list[str]:
    if cost is None:
        return []
    so_far = "" if cost["ended"] else " so far"
    error = cost["error"]["core_hours"]
    if error is None:
        compared = ""
    elif abs(error) < 0.005:
        compared = " (core-hours as estimated)"
    else:
        side = "above" if error > 0 else "below"
        within = ", within its range" if cost["within_range"]["core_hours"] else ""
        compared = f" ({100 * abs(error):.0f} % {side} the estimate{within})"
    return [
        f"estimated {minute(cost['since'])}: {_amounts(cost['expected'])}",
        f"used{so_far}: {_amounts(cost['took'], compared)}",
    ]


def _amounts(cost: Mapping[str, Any], compared: str = "") -> str:
    """Return hours, bytes and money in one line; `compared` follows the core-hours."""
    core_hours = f"{amount(cost['core_hours'])} core-hours{_range(cost, 'core_hours')}{compared}"
    gpu_hours = f"{amount(cost['gpu_hours'])} GPU-hours{_range(cost, 'gpu_hours')}"
    line = f"{core_hours}, {gpu_hours}, {size(cost['bytes'])}{_range(cost, 'bytes')} stored"
    paid = cost["money"]
    if paid is None:
        return line
    line += f": {paid['work']:,.2f} {paid['currency']}"
    monthly = paid["per_month"]
    return line if monthly is None else f"{line}, and {monthly:,.2f} per month for storage"


def _range(cost: Mapping[str, Any], name: str) -> str:
    """Return ` (8 to 20)`, the range of an estimate; empty if it has none."""
    low, high = cost[f"{name}_range"]
    shown = size if name == "bytes" else amount
    return f" ({shown(low)} to {shown(high)})" if low < high else ""


def _whole(number: float) -> str:
    """Return an expected number of objects, which may be a fraction, as a whole number."""
    return "< 1" if 0 < number < 0.5 else f"{number:,.0f}"


def _time(iso: str) -> str:
    """Return `2026-11-30 08:30:30 UTC` for a time as it is stored."""
    return f"{iso[:19].replace('T', ' ')} UTC"


def minute(iso: str) -> str:
    """Return `2026-11-30 08:30 UTC` for a time as it is stored."""
    return f"{iso[:16].replace('T', ' ')} UTC"


def make_table(title: str, words: list[str], numbers: list[str]) -> Table:
    """Return an empty table with columns of words, then of numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in words:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right")
    return table
