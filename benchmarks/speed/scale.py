"""What a build of Objaverse takes on 1, 100 and 1,000 nodes, and what saturates first.

`python -m benchmarks scale` prints the tables of docs/notes/scale.md, which states the formulas;
`--page docs/notes/scale.md` writes them into it. Every number that goes in is an option: objects,
nodes, prices, rates. Stages, seconds and bytes are those that `lrm plan` starts from.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from pipelines.building.build_config import BuildConfig, PriceConfig
from pipelines.building.estimates.cost import Cost, money
from pipelines.building.estimates.estimate import first_estimate

__all__ = ["Inputs", "Load", "limits", "main", "tables", "work"]

MARKS = ("<!-- python -m benchmarks scale -->\n", "<!-- end of python -m benchmarks scale -->\n")
_NODES = (1, 100, 1000)
_STORE_READS, _STORE_WRITES = 5500.0, 3500.0
_SHARD_WRITES = 8
"""Begin, five parts of 50 MiB and end of a shard's upload; its index."""


@dataclass(frozen=True)
class Inputs:
    """What the tables are computed from."""

    objects: float = 800_000
    """That are fetched."""
    glb_megabytes: float = 12.5
    """Of a GLB, on average."""
    cores: float = 64
    """Of a CPU node."""
    gpu_cores: float = 16
    """Of a GPU node, which has one GPU: so many children share it."""
    gpu_seconds: float = 6 / 16
    """Of a GPU, for a render: what stays on the cores of a GPU node, if the GPU takes no time."""
    hub_requests: float = 4750 / 300
    """A second, that the request budget of one token sends in the long run: of the 5,000 in five
    minutes that the hub allows, a twentieth is kept for a burst."""
    driver_tasks: float = 330
    """A second, that a driver on Ray submits and collects."""
    commit_events: float = 3500
    """A second, that the committer takes, in the driver's own thread."""
    core_hour: float = 0.03
    gpu_hour: float = 1.20
    gb_month: float = 0.023
    """Prices in USD, as in docs/guide/cluster.md."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a build asks of everything that is not a node."""

    cost: Cost
    downloads: float
    tasks: float
    events: float
    reads: float
    """Requests to the store that read,"""
    writes: float
    """and that write or delete."""
    files: float
    """That stay: shards, their indexes, and the GLB files."""
    bytes_in: float
    """From the source."""
    bytes_back: float
    """Of GLB files, read back from the root."""
    bytes_out: float
    """Of samples and GLB files."""

    @property
    def core_hours(self) -> float:
        """Of all stages."""
        return self.cost.core_hours


def work(inputs: Inputs, *, gpu: bool) -> Load:
    """The work of one build, which keeps the GLB files as it does by default."""
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
        # HEAD and LIST before a file is put; HEAD and GET of inspection, Blender and the packer. At
        # most: an inspection takes the file from its fetch, and reads only when it runs alone.
        reads=2 * (count["fetch"] + count["inspect"] + count["measure"] + count["pack"]),
        # A file is put; a rendered sample is put, and deleted when it is packed.
        writes=count["fetch"] + 2 * count["render"] + shards * _SHARD_WRITES,
        files=2 * shards + count["fetch"],
        bytes_in=bytes_in,
        # Measurement, render and geometry are one task, which brings the file once.
        bytes_back=count["measure"] * inputs.glb_megabytes * 1e6,
        bytes_out=cost.num_bytes + bytes_in,
    )


def limits(load: Load, inputs: Inputs, nodes: int, *, gpu: bool) -> dict[str, float]:
    """Hours that each part needs for its own share; the whole takes as long as the longest."""
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
    """The tables, as Markdown."""
    loads = {"CPU": work(inputs, gpu=False), "GPU": work(inputs, gpu=True)}
    return "\n".join([*_totals(loads, inputs), "", *_by_nodes(loads, inputs, nodes), ""])


def _totals(loads: Mapping[str, Load], inputs: Inputs) -> Iterator[str]:
    prices = PriceConfig(
        core_hour=inputs.core_hour, gpu_hour=inputs.gpu_hour, gb_month=inputs.gb_month
    )
    load = loads["CPU"]
    yield f"| of {inputs.objects:,.0f} objects | CPU nodes | GPU nodes, at the least |"
    yield "|---|---|---|"
    for stage, cost in load.cost.stages.items():
        other = loads["GPU"].cost.stages[stage]
        hours = [_hours(each.core_hours, each.gpu_hours) for each in (cost, other)]
        yield f"| {stage}: {cost.objects:,.0f} objects | {hours[0]} | {hours[1]} |"
    both = [_hours(each.core_hours, each.cost.gpu_hours) for each in loads.values()]
    yield f"| **all stages** | **{both[0]}** | **{both[1]}** |"
    priced = [money(each.cost, prices) or {} for each in loads.values()]
    yield "| work, USD | " + " | ".join(f"{each['work']:,.0f}" for each in priced) + " |"
    yield f"| bytes in | {_bytes(load.bytes_in)} | the same |"
    yield f"| bytes read back: GLB files | {_bytes(load.bytes_back)} | the same |"
    yield f"| bytes out: samples | {_bytes(load.cost.num_bytes)} | the same |"
    yield f"| bytes out: GLB files | {_bytes(load.bytes_in)} | the same |"
    kept = load.bytes_out / 1e9 * inputs.gb_month
    samples = load.cost.num_bytes / 1e9 * inputs.gb_month
    yield f"| a month of storage, USD | {samples:,.0f}; with GLB files {kept:,.0f} | the same |"
    shards = load.files - inputs.objects
    yield f"| files | {shards:,.0f}; with GLB files {load.files:,.0f} | the same |"
    requests = f"{load.reads:,.0f} that read, {load.writes:,.0f} that change"
    yield f"| requests to the store | {requests} | the same |"
    yield f"| tasks of Ray; events | {load.tasks:,.0f}; {load.events:,.0f} | the same |"


def _by_nodes(loads: Mapping[str, Load], inputs: Inputs, nodes: Sequence[int]) -> Iterator[str]:
    columns = [(kind, number) for kind in loads for number in nodes]
    yield "| | " + " | ".join(f"{number:,} {kind}" for kind, number in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    found = [limits(loads[kind], inputs, n, gpu=kind == "GPU") for kind, n in columns]
    for part in found[0]:
        yield f"| {part}, hours | " + " | ".join(_short(each[part]) for each in found) + " |"
    hub = inputs.objects / inputs.hub_requests / 3600
    yield "| hub, hours | " + " | ".join([_short(hub)] * len(columns)) + " |"
    for source in ("your own bucket", "the hub"):
        whole = [each | ({"hub": hub} if source == "the hub" else {}) for each in found]
        first = [max(each, key=lambda part: each[part]) for each in whole]
        took = [each[part] for each, part in zip(whole, first, strict=True)]
        told = [f"{_short(hours)} ({part})" for hours, part in zip(took, first, strict=True)]
        yield f"| **from {source}: hours, what they wait for** | " + " | ".join(told) + " |"
        pairs = list(zip(columns, took, strict=True))
        if source == "your own bucket":
            yield from _rates(loads, pairs)
        held = [_price(kind, inputs) * number * hours for (kind, number), hours in pairs]
        yield "| nodes held so long, USD | " + " | ".join(f"{usd:,.0f}" for usd in held) + " |"


def _rates(
    loads: Mapping[str, Load], pairs: Sequence[tuple[tuple[str, int], float]]
) -> Iterator[str]:
    for name, total in (
        ("tasks a second", lambda load: load.tasks),
        ("events a second", lambda load: load.events),
        ("requests a second to the store", lambda load: load.reads + load.writes),
        ("MB in a second", lambda load: (load.bytes_in + load.bytes_back) / 1e6),
        ("MB out a second", lambda load: load.bytes_out / 1e6),
    ):
        rates = [total(loads[kind]) / (hours * 3600) for (kind, _), hours in pairs]
        yield f"| {name} | " + " | ".join(f"{rate:,.0f}" for rate in rates) + " |"


def _price(kind: str, inputs: Inputs) -> float:
    """Of a node for an hour."""
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
    """Put the tables between their marks. Raises ValueError if the page has none."""
    before, _, rest = page.read_text().partition(MARKS[0])
    _, mark, after = rest.partition(MARKS[1])
    if not mark:
        raise ValueError(f"{page}: no marks of `python -m benchmarks scale`")
    page.write_text(before + MARKS[0] + text + MARKS[1] + after)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for field in fields(Inputs):
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, type=float, default=field.default, help="[%(default)s]")
    parser.add_argument("--nodes", type=int, nargs="+", default=_NODES)
    parser.add_argument("--page", type=Path, help="write them into this page")
    args = parser.parse_args(arguments)
    inputs = Inputs(**{field.name: getattr(args, field.name) for field in fields(Inputs)})
    text = tables(inputs, args.nodes)
    if args.page:
        write_page(args.page, text)
    else:
        print(text)
