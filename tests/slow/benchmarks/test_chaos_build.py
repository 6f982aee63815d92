"""A short run of the benchmark chaos_build, with one fault of each kind."""

import json
import subprocess
import sys

from benchmarks.chaos.chaos_build import KINDS
from tests.support.paths import REPOSITORY


def can_mount() -> bool:
    """Return whether a user may mount a disk, which containers often forbid."""
    mount = ["sh", "-c", "mount -t tmpfs none /mnt"]
    words = ["unshare", "--user", "--map-root-user", "--mount", *mount]
    return subprocess.run(words, capture_output=True).returncode == 0


def test_faults_do_not_change_the_dataset(tmp_path):
    kinds = [kind for kind in KINDS if kind != "disk" or can_mount()]
    report = tmp_path / "report.json"
    words = ["--kinds", *kinds, "--faults", str(len(kinds)), "--json", str(report)]
    words += ["--most-seconds-between", "4", "--", "--limit", "8"]
    words += ["--render.resolution", "40", "--render.samples", "1"]
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", "chaos_build", *words],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    outcome = json.loads(report.read_text())
    assert outcome["faults"] == dict.fromkeys(kinds, 1)
    assert outcome["driver_starts"] >= 3
    assert outcome["store_faults"]["slow"] >= 10
    assert (outcome["objects"], outcome["differences"], outcome["orphans"]) == (8, [], [])
    assert outcome["samples"] >= 3
