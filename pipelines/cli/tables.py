"""What commands print for people: the funnel, a plan, one object."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from core.failures import FailureKind
from core.quantities import amount, duration, percent, prefixed, short, size
from core.safe_text import printable

__all__ = ["counted", "make_table", "show_object", "show_plan", "show_run_size", "show_status"]


def show_status(summary: Mapping[str, Any]) -> None:
    """The JSON of `lrm status` as tables."""
    console = Console(highlight=False)
    console.print(_funnel(summary))
    if summary["stages"]:
        console.print(_stages(summary["stages"]))
    sizes = ", ".join(f"{name} {size(count)}" for name, count in summary["bytes"].items())
    console.print(f"bytes: {sizes}", soft_wrap=True)
    for line in [*_throughput(summary), *_cost(summary["cost"])]:
        console.print(line, soft_wrap=True)


def show_plan(plan: Mapping[str, Any]) -> None:
    """The JSON of `lrm plan` as a table and a line."""
    console = Console(highlight=False)
    table = make_table("work to do (next stage of each object)", ["stage", "why"], ["objects"])
    for stage, reasons in plan["work"].items():
        for why, count in reasons.items():
            table.add_row(stage, why, f"{count:,}")
    console.print(table if plan["work"] else "nothing to do")
    if plan["work"]:
        table = make_table("expected", ["stage"], ["objects", "core-hours", "GPU-hours", "bytes"])
        for stage, cost in plan["estimate"]["stages"].items():
            numbers = [amount(cost[name]) for name in ("objects", "core_hours", "gpu_hours")]
            table.add_row(stage, *numbers, size(cost["bytes"]))
        console.print(table)
    console.print(f"about {_amounts(plan['estimate'])}", soft_wrap=True)


def show_object(found: Mapping[str, Any]) -> None:
    """The JSON of `lrm inspect` as lines."""
    lines = [f"{found['asset_id']}  {found['record']['name']!r}: {found['state']}"]
    for verdict in found["dropped"]:
        line = f"  dropped by {verdict['filter']}: {verdict['reason']}"
        lines.append(f"{line} (measured {verdict['measured']}, limit {verdict['limit']})")
    if found["failed"]:
        failure = found["failed"]
        lines.append(f"  failed in {failure['stage']}: {failure['kind']}: {failure['message']}")
        lines += [f"  what to do: {kind.remedy}" for kind in FailureKind if kind == failure["kind"]]
    for event in found["events"]:
        what = f"{event['stage']:<8} {event['status']:<7} {event['seconds']:.2f} s"
        lines.append(f"  {event['time'][:19]}  {what}")
    lines += [f"  views: {sample['shard']} ({sample['key']})" for sample in found["samples"]]
    console = Console(highlight=False)
    for line in lines:
        console.print(Text(printable(line)), soft_wrap=True)


def show_run_size(found: Mapping[str, Any]) -> None:
    """The JSON of `lrm train --dry-run` as tables and lines."""
    console = Console(highlight=False)
    table = make_table("model", ["part"], ["trained", "frozen", "forward FLOP / step"])
    trained, frozen, forward = (found[name] for name in ("parameters", "frozen", "forward"))
    for part in dict.fromkeys([*trained, *frozen, *forward]):
        numbers = [prefixed(where.get(part, 0)) for where in (trained, frozen, forward)]
        table.add_row(part, *numbers)
    sums = [prefixed(sum(where.values())) for where in (trained, frozen, forward)]
    table.add_row("together", *sums)
    table.add_row("backward", "", "", prefixed(found["backward"]))
    console.print(table)
    table = make_table("memory of a worker", ["what"], ["bytes"])
    for what, num_bytes in found["memory"].items():
        table.add_row(what, size(num_bytes))
    table.add_row("together", size(found["memory_total"]))
    console.print(table)
    for line in [*_speed(found), *_length(found)]:
        console.print(line, soft_wrap=True)
    for line in found["assumed"]:
        console.print(f"estimated: {line}", soft_wrap=True)
    if found["refused"]:
        console.print(Text(f"would not start here now: {found['refused']}"), soft_wrap=True)


def _speed(found: Mapping[str, Any]) -> list[str]:
    speed = found["speed"]
    share = percent(speed["utilisation"], 1)
    reached = f"{share} of {prefixed(speed['peak'])}FLOP/s"
    lines = [
        f"{speed['workers']} x {speed['device']} at {reached}: {short(speed['seconds_per_step'])} "
        f"a step, {speed['samples_per_second']:,.2f} samples/s"
    ]
    if speed["fits"] is False:
        lines.append(
            f"does not fit {speed['device']}: a smaller --micro-batch, --precision bf16, "
            "--zero-stage 2 or a smaller reduce_bucket_size in --deepspeed may help"
        )
    return lines


def _length(found: Mapping[str, Any]) -> list[str]:
    data = found["data"]
    steps = f"{found['steps']:,} steps of {found['batch_size']} objects"
    kept = f"{found['checkpoints_kept']} of {size(found['checkpoint_bytes'])}"
    lines = [f"{steps}: {duration(found['speed']['seconds'])}", f"checkpoints kept: {kept}"]
    if data is not None:
        lines.append(
            f"{data['samples']:,} samples in the training split: {data['epochs']:,.1f} epochs of "
            f"{data['steps_per_epoch']:,} steps, {size(data['bytes_per_step'])} to read per step"
        )
    return lines


def _funnel(summary: Mapping[str, Any]) -> Table:
    listed = summary["listed"]
    table = make_table("funnel", ["state", "reason"], ["objects", "of listed"])

    def add(state: str, reason: str, count: int) -> None:
        table.add_row(state, Text(printable(reason)), f"{count:,}", percent(count, listed))

    add("listed", "", listed)
    for state in ("dropped", "failed"):
        for reason, count in summary[state].items():
            add(state, reason, count)
    add("pending", "", summary["pending"])
    add("kept", "", summary["kept"])
    if summary["unsure"]:
        add("", "of which unsure", summary["unsure"])
    return table


def _stages(stages: Mapping[str, Mapping[str, Any]]) -> Table:
    numbers = ["done", "time", "seconds each"]
    table = make_table("stages (time of one worker each)", ["stage"], numbers)
    table.add_column("of which (seconds)")
    for stage, values in stages.items():
        done, seconds = values["done"], values["seconds"]
        parts = ", ".join(f"{part} {spent:.0f}" for part, spent in values["parts"].items())
        each = f"{seconds / done:.2f}" if done else ""
        table.add_row(stage, f"{done:,}", duration(seconds), each, parts)
    return table


def _throughput(summary: Mapping[str, Any]) -> list[str]:
    recent = summary["throughput"]
    if recent is None:
        return []
    rate = f", {recent['per_hour']:,.0f} per hour" if recent["per_hour"] else ""
    lines = [f"last work: {recent['objects']:,} objects until {recent['ended'][:19]}{rate}"]
    if summary["pending"]:
        left = duration(summary["seconds_to_go"])
        lines.append(f"pending: {summary['pending']:,} objects, {left} to go at that rate")
    return lines


def _cost(cost: Mapping[str, Any] | None) -> list[str]:
    if cost is None:
        return []
    since = cost["since"][:19]
    so_far = "" if cost["ended"] else " so far"
    lines = [f"expected since {since}: {_amounts(cost['expected'])}"]
    error = cost["error"]["core_hours"]
    off = "" if error is None else f" ({100 * error:+.0f} % core-hours)"
    return [*lines, f"took{so_far}: {_amounts(cost['took'])}{off}"]


def _amounts(cost: Mapping[str, Any]) -> str:
    amounts = [f"{amount(cost['core_hours'])} core-hours", f"{amount(cost['gpu_hours'])} GPU-hours"]
    line = ", ".join([*amounts, f"{size(cost['bytes'])} to store"])
    paid = cost["money"]
    if paid is None:
        return line
    line += f": {paid['work']:,.2f} {paid['currency']}"
    monthly = paid["per_month"]
    return line if monthly is None else f"{line}, and {monthly:,.2f} a month to keep it"


def counted(number: int, noun: str) -> str:
    """Return `1 shard`, `1,200 shards`: a number with its noun, regular plurals only."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def make_table(title: str, words: list[str], numbers: list[str]) -> Table:
    """An empty table with columns of words, then of numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in words:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right")
    return table
