"""The nightly benchmarks: one that fails is named, and the others run."""

import signal

from benchmarks import nightly
from benchmarks.nightly import JOBS, Job, main, run
from benchmarks.registry import BENCHMARKS


def test_every_job_is_a_benchmark():
    assert {job.name for job in JOBS} <= set(BENCHMARKS)


def test_figures_and_failures_are_on_the_page(tmp_path, monkeypatch):
    working = Job("order", "--samples 1000 --positions 50")
    failing, slow = Job("order", "--nonsense"), Job("surfaces", "--fields 100000", seconds=0.5)
    monkeypatch.setattr(nightly, "JOBS", (failing, slow, working))
    page = tmp_path / "benchmarks.md"
    before = signal.getsignal(signal.SIGTERM)
    assert main(["--page", str(page), "--source", str(tmp_path)]) == 1
    signal.signal(signal.SIGTERM, before)
    text = page.read_text()
    assert "3 benchmarks, 2 failed" in text
    assert "| **failed**: exit code 2 |" in text
    assert "| **failed**: not done after 0.5 s |" in text
    assert "| sample at a position, of 1,000 |" in text
    for name in ("Python 3.11", "torch", "bpy", "ray", "deepspeed", "cores", "GiB of memory"):
        assert name in text


def test_figures_of_an_earlier_benchmark_are_ignored(tmp_path):
    (tmp_path / "figures.json").write_text("[]")
    outcome = run(Job("order", "--help"), tmp_path, tmp_path)
    assert (outcome.figures, outcome.problem) == ((), "no figures")
