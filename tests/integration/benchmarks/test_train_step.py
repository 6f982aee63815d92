"""The benchmark train_step: its timings add up, and a tiny step runs in both stages."""

import json
import time

import pytest
import torch
from torch import nn

from benchmarks.speed.step_timing import MasterAdamW, Stopwatch
from benchmarks.speed.train_step import main


def test_timings_are_summed_in_a_step_and_their_median_is_over_steps(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    watch = Stopwatch(torch.device("cpu"))
    for pause in (0.002, 0.004, 0.02):
        for _ in range(2):
            with watch.part("render"):
                now[0] += pause
        with watch.part("optimizer"):
            now[0] += 0.001
    assert watch.medians() == pytest.approx({"render": 8, "optimizer": 1})


def test_master_weights_keep_updates_below_the_precision_of_bfloat16():
    model = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    nn.init.ones_(model.weight)
    optimizer = MasterAdamW(model)
    for _ in range(3000):  # steps of 1e-6; bfloat16 near 1 is spaced by 0.004
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
    assert model.weight.item() < 1
    assert model.weight.grad is None


@pytest.mark.parametrize("stage", ["nerf", "mesh"])
def test_a_tiny_step_is_measured(stage, tmp_path):
    path = tmp_path / "steps.jsonl"
    sizes = "--preset tiny --inputs 1 --views 2 --size 16 --repeat 1 --no-lpips --device cpu"
    main(f"--stage {stage} {sizes} --json {path}".split())
    result = json.loads(path.read_text())
    parts = {"encode", "transform", "render", "loss", "optimizer"}
    assert parts <= set(result["milliseconds"])
    assert result["step_milliseconds"] == pytest.approx(
        sum(result["milliseconds"].values()), abs=0.05
    )
    assert result["flops"] > 0 and 0 < result["share_of_peak"] < 1
    assert (result["triangles"] or 0) > (1000 if stage == "mesh" else -1)
