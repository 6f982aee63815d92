"""A killed build is resumed: no work is lost or repeated, and no process is left."""

import json
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil

from core.storage import Storage
from dataset.catalog.event_log import Catalog
from dataset.format.shards import read_members
from dataset.root import open_root
from dataset.snapshots.snapshot import open_snapshot
from tests.support.datasets import BuiltDataset, events_of
from tests.support.lrm import run_lrm
from tests.support.processes import start_lrm


def samples(root: Path) -> dict[str, dict[str, bytes]]:
    """Return all members of every kept sample."""
    snapshot = run_lrm("snapshot", "--root", root, "--json").json()["snapshot"]
    storage = open_root(str(root))
    return {
        sample.asset_id: read_members(storage, sample.shard, sample.entry, sample.entry.members)
        for sample in open_snapshot(storage, snapshot).samples
    }


def test_a_build_killed_twice_has_the_same_samples(built_dataset: BuiltDataset, tmp_path: Path):
    root = tmp_path / "root"
    words = [*built_dataset.words, "--root", str(root), "--execution.commit-seconds", "0.2"]
    for number in (2, 5):
        driver = start_lrm(["build", *words])
        _wait_for(driver, root, rendered=number)
        children = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        # The Blender child ends with the process that started it.
        assert psutil.wait_procs(children, timeout=20)[1] == []
    run_lrm("build", *words, "--json").json()
    assert samples(root) == samples(built_dataset.root)
    assert not list(root.glob("staging/*.tar"))
    renders = Counter(
        record.event.asset_id
        for asset_id in samples(root)
        for record in Catalog(Storage(str(root))).history(asset_id)
        if record.event.stage == "render"
    )
    # Work whose result was committed is never repeated.
    assert set(renders.values()) == {1}


def _wait_for(driver: subprocess.Popen, root: Path, rendered: int) -> None:
    deadline = time.monotonic() + 200
    while True:
        assert driver.poll() is None, "the build ended before it could be killed"
        assert time.monotonic() < deadline
        if sum(event["stage"] == "render" for event in events_of(root)) >= rendered:
            return
        time.sleep(0.1)


def test_a_lost_staged_sample_is_rendered_again(built_dataset: BuiltDataset, tmp_path: Path):
    """A rendered sample may be lost before it is packed."""
    root = tmp_path / "root"
    words = [*built_dataset.words, "--root", str(root), "--limit", "8"]
    words += ["--execution.commit-seconds", "0.2", "--shards.samples-per-shard", "100"]
    driver = start_lrm(["build", *words])
    _wait_for(driver, root, rendered=2)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    staged = sorted(root.glob("staging/*.tar"))
    staged[0].write_bytes(staged[0].read_bytes()[:1000])
    answer = run_lrm("build", *words, "--json")
    assert answer.code == 1
    assert "1 object left undone: staging_lost 1 (" in answer.err
    first = json.loads(answer.out)
    assert first["failed"]["staging_lost"] == 1
    second = run_lrm("build", *words, "--json").json()
    assert "staging_lost" not in second["failed"]
    actual, expected = samples(root), samples(built_dataset.root)
    assert len(actual) == second["kept"] >= 3
    assert actual == {asset_id: expected[asset_id] for asset_id in actual}
