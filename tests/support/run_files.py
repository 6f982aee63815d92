"""The files of a run that are written without a training."""

import json
from pathlib import Path
from typing import Any

from tests.support.checkpoints import settings, write
from train.monitoring.loggers.logger import LoggedStart
from train.monitoring.run_file import write_run
from train.monitoring.run_log import RunLog
from train.monitoring.run_state import RunState, StartProgress
from train.resilience.damaged_samples import Fault, FaultCounter, Replacement
from train.resilience.step_guard import StepGuard

__all__ = ["step_line", "step_values", "write_run_files"]


def step_values(**more: Any) -> dict[str, Any]:
    """Return the values of a line of the metrics, except the step."""
    timing = {"seconds": 0.5, "time": 1.7e9, "samples_per_second": 4.0, "goodput": 0.9}
    return {"samples": 2, "loss": 0.5, "lr": 1e-3, "batch": "abc"} | timing | more


def step_line(step: int, **more: Any) -> str:
    """Return a line of the metrics."""
    return json.dumps({"step": step} | step_values(**more)) + "\n"


def write_run_files(out: Path) -> None:
    """Write the folder of a run of four steps, with every file that is read again."""
    config = settings(out, steps=4, checkpoint_every=2)
    guard, faults = StepGuard(config.guard), FaultCounter(config.data_faults, 2)
    fault = Fault(position=3, asset_id="objaverse:a", shard="a.tar", cause="is missing")
    log = RunLog(out, 0)
    with RunState(out, StartProgress(out)), log:
        write_run(out, config, 0, ["host"])
        for step in range(1, 5):
            more = {"skipped": "a spike", "skipped_so_far": 1, "replaced": 1, "replaced_so_far": 1}
            log.step(step, step_values(**more))
            guard.record(0.5, "")
            faults.record(1)
        log.skipped(2, "a spike", ["a", "b"])
        log.replaced(2, Replacement(faults=[fault], replaced_by="objaverse:b"))
        log.validation(4, {"psnr": 20.0, "ssim": 0.9})
    manifest = write(out, 4, steps=4, checkpoint_every=2) / "manifest.json"
    extra = {"guard": guard.dump(), "faults": faults.dump(), "position": 8}
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"extra": extra}))
    start = LoggedStart(out=out, first_step=0, logged_step=0, recipe="nerf", config={})
    start.store_id("wandb", "abc")
