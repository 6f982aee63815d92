"""Measure the events per second that a build's committer writes.

`python -m benchmarks commits` commits measurements of many objects, in their real form, to a local
folder as a build does, and updates `latest/`. It prints events per second for each quarter of them,
which shows whether the rate falls as the catalog grows. docs/notes/scale.md shows the figures of a
run.
"""

import json
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figure, add_figures, write_figures
from benchmarks.help_text import benchmark_parser
from benchmarks.speed.catalog import stage_data
from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from pipelines.building.build_config import BuildConfig
from pipelines.building.committer import Committer
from pipelines.building.object_table import latest_of

_PER_TICK = 100
"""Events that are added between two calls of the committer's tick."""
_QUARTERS = 4


def main() -> None:
    """Commit the events, and print the rate of each quarter."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--objects", type=int, default=200_000, help="number of events")
    add_figures(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(folder, args.objects)
    print(f"{args.objects:,} events, by quarter: {', '.join(f'{r:,.0f}/s' for r in rates)}")
    mean = len(rates) / sum(1 / rate for rate in rates)
    figures = [
        Figure(f"commit {args.objects:,} events", mean, "events/s"),
        Figure(f"commit {args.objects:,} events, last quarter", rates[-1], "events/s"),
    ]
    write_figures(args.figures, figures)


def measure(folder: str, count: int) -> list[float]:
    """Return the events per second of each quarter."""
    root = Storage(str(Path(folder) / "root"))
    catalog = Catalog(root)
    config = BuildConfig(source=folder, root=root.uri)
    committer = Committer(catalog, latest_of(root, catalog), config.execution)
    data = [json.loads(stage_data("measure")) for _ in range(1000)]
    each, rates = count // _QUARTERS, []
    for quarter in range(_QUARTERS):
        started = time.monotonic()
        for first in range(quarter * each, (quarter + 1) * each, _PER_TICK):
            numbers = range(first, first + _PER_TICK)
            committer.add(_event(number, data[number % len(data)]) for number in numbers)
            committer.tick()
        committer.flush()
        rates.append(each / (time.monotonic() - started))
    return rates


def _event(number: int, data: dict) -> Event:
    asset_id = f"objaverse:{number:032x}"
    return Event(asset_id=asset_id, stage="measure", rig="lrm32", data=data, seconds=2.0)
