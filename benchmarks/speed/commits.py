"""How many outcomes a second the committer of a build takes, the renewals of `latest/` included.

`python -m benchmarks commits` commits the measurements of 200,000 objects to a local folder, in
their real form, as a build does. docs/notes/scale.md holds a run's figures.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figure, add_figures, write_figures
from benchmarks.speed.catalog import stage_data
from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from pipelines.building.build_config import BuildConfig
from pipelines.building.committer import Committer
from pipelines.building.object_table import latest_of

_TOGETHER = 100
"""Outcomes between two looks at the clock."""
_QUARTERS = 4


def main() -> None:
    """Commit, and print the rate of each quarter: whether it falls as the catalog grows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--objects", type=int, default=200_000)
    add_figures(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(folder, args.objects)
    print(f"{args.objects:,} outcomes, by quarters: {', '.join(f'{r:.0f}/s' for r in rates)}")
    mean = len(rates) / sum(1 / rate for rate in rates)
    found = [
        Figure(f"commit {args.objects:,} outcomes", mean, "events/s"),
        Figure("the same, last quarter", rates[-1], "events/s"),
    ]
    write_figures(args.figures, found)


def measure(folder: str, count: int) -> list[float]:
    """Outcomes per second of each quarter."""
    root = Storage(str(Path(folder) / "root"))
    catalog = Catalog(root)
    config = BuildConfig(source=folder, root=root.uri)
    committer = Committer(catalog, latest_of(root, catalog), config.execution)
    data = [json.loads(stage_data("measure")) for _ in range(1000)]
    each, rates = count // _QUARTERS, []
    for quarter in range(_QUARTERS):
        started = time.monotonic()
        for first in range(quarter * each, (quarter + 1) * each, _TOGETHER):
            numbers = range(first, first + _TOGETHER)
            committer.add(_event(number, data[number % len(data)]) for number in numbers)
            committer.tick()
        committer.flush()
        rates.append(each / (time.monotonic() - started))
    return rates


def _event(number: int, data: dict) -> Event:
    asset_id = f"objaverse:{number:032x}"
    return Event(asset_id=asset_id, stage="measure", rig="lrm32", data=data, seconds=2.0)
