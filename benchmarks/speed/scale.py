"""Compute the time and the cost of building Objaverse on 1, 100 and 1,000 nodes.

`python -m benchmarks scale` prints the tables of docs/notes/scale.md, which explains the formulas:
hours, requests, bytes, files and prices, and which part limits the speed. `--page
docs/notes/scale.md` writes them into that page. Every input is an option. The share of objects, the
seconds and the bytes of each stage are the first estimates of `lrm plan`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from benchmarks.help_text import benchmark_parser
from pipelines.building.build_config import BuildConfig, PriceConfig
from pipelines.building.estimates.cost import Cost, money
from pipelines.building.estimates.estimate import first_estimate

__all__ = ["Inputs", "Load", "limits", "main", "tables", "work"]

MARKS = ("<!-- python -m benchmarks scale -->\n", "<!-- end of python -m benchmarks scale -->\n")
_NODES = (1, 100, 1000)
_STORE_READS, _STORE_WRITES = 5500.0, 3500.0
"""Requests per second and prefix that S3 allows."""
_SHARD_WRITES = 8
"""Requests for a shard: start, five parts of 50 MiB and end of its upload, and its index."""


def _number(default: float, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Inputs:
    """The inputs of the tables; `help` in the metadata explains each."""

    objects: float = _number(800_000, "number of fetched objects")
    glb_megabytes: float = _number(12.5, "mean size of a GLB file in MB")
    cores: float = _number(64, "cores of a CPU node")
    gpu_cores: float = _number(16, "cores of a GPU node, which has one GPU")
    # 6 s of CPU per render, divided by the 16 children that share a GPU.
    gpu_seconds: float = _number(6 / 16, "GPU seconds per render; a lower bound")
    # The hub allows 5,000 requests in five minutes; a twentieth is reserved for bursts.
    hub_requests: float = _number(4750 / 300, "requests per second to the hub with one token")
    driver_tasks: float = _number(330, "Ray tasks per second of the driver")
    commit_events: float = _number(3500, "events per second of the committer")
    core_hour: float = _number(0.03, "price of a core-hour in USD")
    gpu_hour: float = _number(1.20, "price of a GPU node's hour in USD")
    gb_month: float = _number(0.023, "price of a GB of storage per month in USD")


@dataclass(frozen=True, kw_only=True)
class Load:
    """The load of a build on nodes, driver, source and object store."""

    cost: Cost
    downloads: float
    tasks: float
    events: float
    reads: float
    """Requests to the store that read."""
    writes: float
    """Requests to the store that write or delete."""
    files: float
    """Files at the end: shards, their indexes and GLB files."""
    bytes_in: float
    """Bytes from the source."""
    bytes_back: float
    """Bytes of GLB files that are read back from the root."""
    bytes_out: float
    """Bytes of samples and GLB files."""

    @property
    def core_hours(self) -> float:
        """The core-hours of all stages."""
        return self.cost.core_hours


def work(inputs: Inputs, *, gpu: bool) -> Load:
    """Return the load of one build, which keeps the GLB files as it does by default."""
    config = BuildConfig(source="objaverse", root="s3://bucket/root")
    cost = first_estimate(config, round(inputs.objects))
    if gpu:
        render = cost.stages["render"]
        hours = render.objects * inputs.gpu_seconds / 3600
        on_gpu = replace(render, core_hours=0.0, gpu_hours=hours)
        cost = Cost(stages={**cost.stages, "render": on_gpu})
    count = {name: stage.objects for name, stage in cost.stages.items()}
    shards = count["pack"] / config.shards.samples_per_shard
    bytes_in = inputs.objects * inputs.glb_megabytes * 1e6
    return Load(
        cost=cost,
        downloads=inputs.objects,
        tasks=count["fetch"] + count["measure"] + shards,
        events=inputs.objects + sum(count.values()),
        # HEAD and LIST before a file is put; HEAD and GET of inspection, Blender and the packer.
        # This is a maximum: an inspection in the task of its fetch does not read the file again.
        reads=2 * (count["fetch"] + count["inspect"] + count["measure"] + count["pack"]),
        # A fetched file is put; a rendered sample is put, and deleted after it is packed.
        writes=count["fetch"] + 2 * count["render"] + shards * _SHARD_WRITES,
        files=2 * shards + count["fetch"],
        bytes_in=bytes_in,
        # Measurement, render and geometry are one task, which reads the file once.
        bytes_back=count["measure"] * inputs.glb_megabytes * 1e6,
        bytes_out=cost.num_bytes + bytes_in,
    )


def limits(load: Load, inputs: Inputs, nodes: int, *, gpu: bool) -> dict[str, float]:
    """Return the hours that each part needs; they run at the same time, so the longest counts."""
    if gpu:
        cores = inputs.gpu_cores * nodes
        hours = load.cost.gpu_hours / nodes + load.core_hours / cores
    else:
        hours = load.core_hours / (inputs.cores * nodes)
    return {
        "nodes": hours,
        "driver": (load.tasks / inputs.driver_tasks + load.events / inputs.commit_events) / 3600,
        "store": max(load.reads / _STORE_READS, load.writes / _STORE_WRITES) / 3600,
    }


def tables(inputs: Inputs, nodes: Sequence[int] = _NODES) -> str:
    """Return the tables as Markdown."""
    loads = {"CPU": work(inputs, gpu=False), "GPU": work(inputs, gpu=True)}
    return "\n".join([*_totals(loads, inputs), "", *_by_nodes(loads, inputs, nodes), ""])


def _totals(loads: Mapping[str, Load], inputs: Inputs) -> Iterator[str]:
    prices = PriceConfig(
        core_hour=inputs.core_hour, gpu_hour=inputs.gpu_hour, gb_month=inputs.gb_month
    )
    load = loads["CPU"]
    yield f"| {inputs.objects:,.0f} objects | CPU nodes | GPU nodes, lower bound |"
    yield "|---|---|---|"
    for stage, cost in load.cost.stages.items():
        other = loads["GPU"].cost.stages[stage]
        hours = [_hours(each.core_hours, each.gpu_hours) for each in (cost, other)]
        yield f"| {stage}: {cost.objects:,.0f} objects | {hours[0]} | {hours[1]} |"
    both = [_hours(each.core_hours, each.cost.gpu_hours) for each in loads.values()]
    yield f"| **all stages** | **{both[0]}** | **{both[1]}** |"
    priced = [money(each.cost, prices) or {} for each in loads.values()]
    yield "| work, USD | " + " | ".join(f"{each['work']:,.0f}" for each in priced) + " |"
    yield f"| bytes from the source | {_bytes(load.bytes_in)} | the same |"
    yield f"| bytes read back, GLB files | {_bytes(load.bytes_back)} | the same |"
    yield f"| bytes written, samples | {_bytes(load.cost.num_bytes)} | the same |"
    yield f"| bytes written, GLB files | {_bytes(load.bytes_in)} | the same |"
    kept = load.bytes_out / 1e9 * inputs.gb_month
    samples = load.cost.num_bytes / 1e9 * inputs.gb_month
    yield f"| storage per month, USD | {samples:,.0f}; with GLB files {kept:,.0f} | the same |"
    shards = load.files - inputs.objects
    yield f"| files | {shards:,.0f}; with GLB files {load.files:,.0f} | the same |"
    requests = f"{load.reads:,.0f} reads, {load.writes:,.0f} changes"
    yield f"| requests to the store | {requests} | the same |"
    yield f"| Ray tasks; events | {load.tasks:,.0f}; {load.events:,.0f} | the same |"


def _by_nodes(loads: Mapping[str, Load], inputs: Inputs, nodes: Sequence[int]) -> Iterator[str]:
    columns = [(kind, number) for kind in loads for number in nodes]
    yield "| | " + " | ".join(f"{number:,} {kind}" for kind, number in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    hours_by_part = [limits(loads[kind], inputs, n, gpu=kind == "GPU") for kind, n in columns]
    for part in hours_by_part[0]:
        yield (
            f"| {part}, hours | "
            + " | ".join(_short(parts[part]) for parts in hours_by_part)
            + " |"
        )
    hub = inputs.objects / inputs.hub_requests / 3600
    yield "| hub, hours | " + " | ".join([_short(hub)] * len(columns)) + " |"
    for source in ("your own bucket", "the hub"):
        all_parts = [
            parts | ({"hub": hub} if source == "the hub" else {}) for parts in hours_by_part
        ]
        limiting = [max(parts, key=lambda part: parts[part]) for parts in all_parts]
        durations = [parts[part] for parts, part in zip(all_parts, limiting, strict=True)]
        yield f"| **from {source}: hours** | " + " | ".join(map(_short, durations)) + " |"
        yield "| limited by | " + " | ".join(limiting) + " |"
        pairs = list(zip(columns, durations, strict=True))
        if source == "your own bucket":
            yield from _rates(loads, pairs)
        held = [_price(kind, inputs) * number * hours for (kind, number), hours in pairs]
        yield "| nodes for that time, USD | " + " | ".join(f"{usd:,.0f}" for usd in held) + " |"


def _rates(
    loads: Mapping[str, Load], pairs: Sequence[tuple[tuple[str, int], float]]
) -> Iterator[str]:
    for name, total in (
        ("tasks per second", lambda load: load.tasks),
        ("events per second", lambda load: load.events),
        ("store requests per second", lambda load: load.reads + load.writes),
        ("MB/s read", lambda load: (load.bytes_in + load.bytes_back) / 1e6),
        ("MB/s written", lambda load: load.bytes_out / 1e6),
    ):
        rates = [total(loads[kind]) / (hours * 3600) for (kind, _), hours in pairs]
        yield f"| {name} | " + " | ".join(f"{rate:,.0f}" for rate in rates) + " |"


def _price(kind: str, inputs: Inputs) -> float:
    """Return the price of a node for an hour in USD."""
    return inputs.gpu_hour if kind == "GPU" else inputs.core_hour * inputs.cores


def _hours(core_hours: float, gpu_hours: float) -> str:
    cores = f"{core_hours:,.0f} core-hours"
    if not gpu_hours:
        return cores
    gpus = f"{gpu_hours:,.0f} GPU-hours"
    return f"{gpus}, {cores}" if core_hours else gpus


def _bytes(number: float) -> str:
    return f"{number / 1e12:.2f} TB"


def _short(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2f}"


def write_page(page: Path, text: str) -> None:
    """Write the tables between the marks of a page. Raises ValueError if it has no marks."""
    before, _, rest = page.read_text().partition(MARKS[0])
    _, mark, after = rest.partition(MARKS[1])
    if not mark:
        raise ValueError(f"{page} has no marks of `python -m benchmarks scale`")
    page.write_text(before + MARKS[0] + text + MARKS[1] + after)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, or write them into a page."""
    parser = benchmark_parser(__doc__)
    for setting in fields(Inputs):
        option = f"--{setting.name.replace('_', '-')}"
        text = f"{setting.metadata['help']} [default: {setting.default:g}]"
        parser.add_argument(option, type=float, default=setting.default, metavar="N", help=text)
    parser.add_argument("--nodes", type=int, nargs="+", default=_NODES, help="numbers of nodes")
    parser.add_argument("--page", type=Path, help="write the tables into this Markdown page")
    args = parser.parse_args(arguments)
    inputs = Inputs(**{setting.name: getattr(args, setting.name) for setting in fields(Inputs)})
    text = tables(inputs, args.nodes)
    if args.page:
        write_page(args.page, text)
    else:
        print(text)
