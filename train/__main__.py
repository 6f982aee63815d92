"""Train without Ray: `torchrun --nproc-per-node N -m train nerf --root ... --out ...`."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import BadInput, LrmError
from core.monitoring.last_error import describe_failure
from core.monitoring.notify import notify_at_end
from core.options import (
    Parser,
    add_config_options,
    add_monitoring_options,
    given_setting,
    load_config,
)

if TYPE_CHECKING:
    from train.settings.train_config import TrainConfig

__all__ = ["main", "make_parser"]

_ENVIRONMENT = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables that torchrun sets for each process."""


def make_parser() -> Parser:
    """Return a parser with one subcommand per recipe."""
    from train.recipes.registry import add_recipe_parsers

    parser = Parser(prog="python -m train", description=__doc__)
    add_recipe_parsers(parser, _recipe_options, required=True)
    return parser


def _recipe_options(name: str, parser: Parser) -> None:
    """Add the options of a recipe; its configuration imports torch."""
    from train.recipes.registry import RECIPES

    add_config_options(parser, RECIPES[name].config)
    add_monitoring_options(parser)
    parser.set_common(RECIPES[name].common)


def main(argv: Sequence[str] | None = None) -> int:
    """Train as one of torchrun's processes.

    Returns the exit code: 0, 1 (work failed), 2 (bad usage), or 143 if the run was stopped. Rank 0
    runs the hook, after the last line.
    """
    arguments = make_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    hook = arguments.notify if os.environ.get("RANK", "0") == "0" else None
    out = given_setting(arguments, "out")
    subject = f"train {arguments.recipe}" + (f" --out {out}" if out else "")
    try:
        with notify_at_end(hook, subject):
            _run(arguments)
    except Exception as error:  # noqa: BLE001 - `_run` has printed it
        return error.exit_code if isinstance(error, LrmError) else 1
    return 0


def _run(arguments: argparse.Namespace) -> None:
    """Train, or print why that failed and raise the error."""
    from train.recipes.registry import RECIPES
    from train.resilience.collectives import broken_connections

    try:
        config = load_config(RECIPES[arguments.recipe].config, arguments)
        with broken_connections():
            _train(arguments.recipe, config, arguments.metrics_port)
    except Exception as error:
        failure = describe_failure(error)
        # Every Exception is described; None is for the ends that libraries ask for.
        line = failure.line if failure else str(error)
        print(f"train {arguments.recipe}: {line}", file=sys.stderr, flush=True)
        raise


def _train(name: str, config: "TrainConfig", metrics_port: int | None) -> None:
    import torch
    import torch.distributed as dist

    from train.checkpoints.pinned_snapshot import pin_snapshot
    from train.loop.engine import train
    from train.loop.preflight import preflight
    from train.loop.run_folder import check_run_folder
    from train.monitoring.progress_line import ProgressPrinter
    from train.recipes.registry import make_recipe, recipe_of
    from train.resilience.collectives import on_rank_0

    missing = [name for name in _ENVIRONMENT if not os.environ.get(name)]
    if missing:
        raise BadInput(
            f"{missing[0]} is not set: start this program with torchrun, or use `lrm train`"
        )
    world_size = int(os.environ["WORLD_SIZE"])
    if world_size not in config.model_copy(update={"num_workers": f"1:{world_size}"}).worker_counts:
        raise BadInput(
            f"batch_size {config.batch_size} is not a multiple of {world_size} processes"
        )
    config = config.model_copy(update={"num_workers": world_size})
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        with ExitStack() as stack:
            # An error of rank 0 is raised on the other ranks, too.
            on_rank_0(lambda: check_run_folder(config, recipe_of))
            # On one rank: a snapshot that is created meanwhile would be `latest` for some ranks.
            pinned = on_rank_0(lambda: pin_snapshot(config))
            if preflight(pinned).first_step >= config.steps:
                return
            on_rank_0(lambda: _claim(pinned, metrics_port, stack))
            recipe = make_recipe(name, pinned.dump())
            train(recipe, on_step=ProgressPrinter(config.steps))
            # Without this barrier a rank could exit while others still communicate with it.
            dist.barrier()
    finally:
        dist.destroy_process_group()


def _claim(config: "TrainConfig", metrics_port: int | None, stack: ExitStack) -> None:
    """Record this run's launcher and serve its metrics while the stack is open. Raises BadInput."""
    from core.monitoring.endpoint import Metric, serve_metrics
    from train.monitoring.run_metrics import collect_run_metrics
    from train.monitoring.run_state import RunState, StartProgress
    from train.resilience.stop_file import StopFile

    out = Path(config.out).absolute()

    def collect() -> Iterator[Metric]:
        restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        return collect_run_metrics(out, config.steps, restarts=restarts)

    stack.enter_context(serve_metrics(metrics_port, collect))
    stack.enter_context(RunState(out, StartProgress(out)))
    # A stop file of an earlier start would end this one.
    StopFile(out).remove()


if __name__ == "__main__":
    sys.exit(main())
