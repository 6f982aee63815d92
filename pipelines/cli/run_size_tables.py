"""Text output of `lrm train --dry-run`: sizes, memory and speed of a run."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from core.quantities import duration, percent, short_duration, size, with_si_prefix
from pipelines.cli.tables import counted, make_table

__all__ = ["show_run_size"]


def show_run_size(sizes: Mapping[str, Any]) -> None:
    """Print the JSON of `lrm train --dry-run` as tables and lines."""
    console = Console(highlight=False)
    table = make_table("model", ["part"], ["trained", "frozen", "forward FLOP / step"])
    trained, frozen, forward = (sizes[name] for name in ("parameters", "frozen", "forward"))
    for part in dict.fromkeys([*trained, *frozen, *forward]):
        numbers = [with_si_prefix(values.get(part, 0)) for values in (trained, frozen, forward)]
        table.add_row(part, *numbers)
    sums = [with_si_prefix(sum(values.values())) for values in (trained, frozen, forward)]
    table.add_row("total", *sums)
    table.add_row("backward", "", "", with_si_prefix(sizes["backward"]))
    console.print(table)
    table = make_table("memory per worker", ["for"], ["size"])
    for purpose, num_bytes in sizes["memory"].items():
        table.add_row(purpose, size(num_bytes))
    table.add_row("total", size(sizes["memory_total"]))
    console.print(table)
    for line in [*_speed(sizes), *_length(sizes)]:
        console.print(line, soft_wrap=True)
    for line in sizes["assumed"]:
        console.print(f"assumption: {line}", soft_wrap=True)
    if sizes["refused"]:
        console.print(Text(f"cannot start on this machine: {sizes['refused']}"), soft_wrap=True)


def _speed(sizes: Mapping[str, Any]) -> list[str]:
    speed = sizes["speed"]
    share = percent(speed["utilisation"], 1)
    reached = f"{share} of {with_si_prefix(speed['peak'])}FLOP/s"
    pace = f"{short_duration(speed['seconds_per_step'])} per step"
    lines = [
        f"speed on {speed['workers']} x {speed['device']} at {reached}: {pace}, "
        f"{speed['samples_per_second']:,.2f} samples/s"
    ]
    if speed["fits"] is False:
        lines.append(
            f"does not fit into the memory of {speed['device']}: try a smaller --micro-batch, "
            "--precision bf16, --zero-stage 2 or a smaller reduce_bucket_size in --deepspeed"
        )
    return lines


def _length(sizes: Mapping[str, Any]) -> list[str]:
    data = sizes["data"]
    steps = f"{counted(sizes['steps'], 'step')} of {counted(sizes['batch_size'], 'object')}"
    kept = f"{sizes['checkpoints_kept']} of {size(sizes['checkpoint_bytes'])} each"
    lines = [f"{steps}: {duration(sizes['speed']['seconds'])}", f"checkpoints kept: {kept}"]
    if data is not None:
        lines.append(
            f"{counted(data['samples'], 'sample')} in the training split: {data['epochs']:,.1f} "
            f"epochs of {counted(data['steps_per_epoch'], 'step')}, "
            f"{size(data['bytes_per_step'])} to read per step"
        )
    return lines
