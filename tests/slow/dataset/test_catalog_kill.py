"""A committer killed during a commit loses and duplicates no event."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from tests.support.paths import REPOSITORY

EVENTS = 300
WRITER = f"""
import sys
from dataset.catalog.event_log import Catalog, Event
from core.storage import Storage

catalog = Catalog(Storage(sys.argv[1]))
for batch in range(1, 10_000):
    events = [
        Event(asset_id=f"a:{{i}}", stage="fetch", data={{"run": sys.argv[2], "batch": batch}})
        for i in range({EVENTS})
    ]
    print("begin", batch, flush=True)
    catalog.commit(events, sys.argv[2], batch)
    print("done", batch, flush=True)
"""


def test_every_batch_is_committed_completely_or_not_at_all(tmp_path: Path) -> None:
    rng = random.Random(1)
    committed: set[tuple[str, int]] = set()
    begun: set[tuple[str, int]] = set()
    for number in range(5):
        run = f"run{number}"
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), run],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(1 + 2 * rng.randrange(1, 4))]
        assert lines[-1].startswith("begin")
        time.sleep(rng.random() * 0.1)
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
        writer.wait()
        writer.stdout.close()
        for line in lines:
            state, batch = line.split()
            (committed if state == "done" else begun).add((run, int(batch)))
    assert committed <= whole_batches(tmp_path) <= begun
    # A writer that does not know whether its last commit succeeded repeats it.
    catalog = Catalog(Storage(str(tmp_path)))
    for run, batch in begun:
        data = {"run": run, "batch": batch}
        events = [Event(asset_id=f"a:{i}", stage="fetch", data=data) for i in range(EVENTS)]
        catalog.commit(events, run, batch)
    assert whole_batches(tmp_path) == begun


def whole_batches(folder: Path) -> set[tuple[str, int]]:
    """Return (run, batch) of all events, after checking that every batch is complete and unique."""
    catalog = Catalog(Storage(str(folder)))
    history = [record for i in (0, EVENTS - 1) for record in catalog.history(f"a:{i}")]
    ends = Counter((r.event.data["run"], r.event.data["batch"]) for r in history)
    assert set(ends.values()) == {2}
    rows = sum(batch.num_rows for batch in catalog.since(0))
    assert rows == len(ends) * EVENTS
    return set(ends)
