"""A short run of the chaos: one fault of each kind, for real."""

import json
import subprocess
import sys

from benchmarks.chaos.chaos_build import KINDS
from tests.support.paths import REPOSITORY


def can_mount() -> bool:
    """Whether a user may have a disk of its own: containers often forbid it."""
    mount = ["sh", "-c", "mount -t tmpfs none /mnt"]
    words = ["unshare", "--user", "--map-root-user", "--mount", *mount]
    return subprocess.run(words, capture_output=True).returncode == 0


def test_whatever_is_disturbed_the_dataset_is_the_same(tmp_path):
    kinds = [kind for kind in KINDS if kind != "disk" or can_mount()]
    found = tmp_path / "found.json"
    words = ["--kinds", *kinds, "--faults", str(len(kinds)), "--json", str(found)]
    words += ["--most-seconds-between", "4", "--", "--limit", "8"]
    words += ["--render.resolution", "40", "--render.samples", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "chaos_build", *words],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads(found.read_text())
    assert outcome["faults"] == dict.fromkeys(kinds, 1)
    assert outcome["driver_starts"] >= 3
    assert outcome["store_faults"]["slow"] >= 10
    assert (outcome["objects"], outcome["differences"], outcome["orphans"]) == (8, [], [])
    assert outcome["samples"] >= 3
