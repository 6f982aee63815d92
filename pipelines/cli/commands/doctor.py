"""`lrm doctor`: what is missing on this machine, and how to install it."""

import argparse
import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from core.options import Parser, add_json_option
from core.safe_text import printable
from pipelines.cli.command import Command
from pipelines.cli.torch_options import add_lpips_options
from pipelines.doctor.finding import Finding

if TYPE_CHECKING:
    from pipelines.doctor.probe import ProbeResult


__all__ = [
    "COMMAND",
]

_GROUPS = {
    "build": "building datasets",
    "gpu": "rendering on a GPU",
    "train": "training, reconstruction, evaluation",
    "reach": "network and storage",
}
_CHOICES = ("build", "gpu", "train")


def _options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--for",
        dest="purposes",
        action="append",
        choices=_CHOICES,
        metavar="WHAT",
        help="Check only the parts that build, gpu or train needs; may be repeated. With gpu, a "
        "small picture is rendered and a missing GPU is an error. [default: all, without "
        "requiring a GPU]",
    )
    parser.add_argument(
        "--online", action="store_true", help="Also check that the hub of Objaverse answers."
    )
    parser.add_argument(
        "--root",
        metavar="URI",
        help="Also check that this dataset can be read, on S3 or elsewhere.",
    )
    add_lpips_options(parser)
    add_json_option(parser)


def _run(arguments: argparse.Namespace) -> int:
    """Run the checks; return 1 if a required part is missing."""
    findings: dict[str, list[Finding]] = {}
    for name, check in _checks(arguments).items():
        findings[name] = check()
        if not arguments.json:
            _show(_GROUPS[name], findings[name])
    missing = [item for items in findings.values() for item in items if item.state == "missing"]
    if arguments.json:
        groups = {name: list(map(dataclasses.asdict, items)) for name, items in findings.items()}
        print(json.dumps({"missing": len(missing), "groups": groups}))
    else:
        print(f"missing: {', '.join(item.what for item in missing) or 'nothing'}")
    return 1 if missing else 0


def _checks(arguments: argparse.Namespace) -> Mapping[str, Callable[[], list[Finding]]]:
    """Return the requested groups of checks, in the order of the output."""
    from pipelines.doctor.blender_child import start_child

    wanted = arguments.purposes or _CHOICES
    gpu_wanted = "gpu" in (arguments.purposes or ())
    child = functools.cache(start_child)
    weights = (arguments.lpips_vgg, arguments.lpips_linear)
    checks = {
        "build": lambda: _build(child),
        "gpu": lambda: _gpu(child, wanted=gpu_wanted),
        "train": lambda: _train(*weights, gpu_wanted=gpu_wanted),
    }
    chosen = {name: checks[name] for name in _CHOICES if name in wanted}
    if arguments.online or arguments.root is not None:
        chosen["reach"] = lambda: _reach(arguments)
    return chosen


def _build(child: Callable[..., "ProbeResult"]) -> list[Finding]:
    from pipelines.doctor import blender_child as blender
    from pipelines.doctor import machine
    from pipelines.doctor.packages import BUILD_PACKAGES, check_packages

    started = child(gpu=False)
    return [
        blender.check_libraries(),
        blender.check_child(started),
        *blender.check_network(started),
        *check_packages(BUILD_PACKAGES, "build"),
        machine.check_memory(),
        machine.check_shared_memory("Ray's objects"),
        machine.check_scratch(),
        machine.check_ray_folder(),
        machine.check_open_files(),
    ]


def _gpu(child: Callable[..., "ProbeResult"], *, wanted: bool) -> list[Finding]:
    from pipelines.doctor import blender_child as blender

    return [blender.check_gpu(child(gpu=False), wanted=wanted)]


def _train(vgg: str | None, linear: str | None, *, gpu_wanted: bool) -> list[Finding]:
    from pipelines.doctor import machine, training
    from pipelines.doctor.packages import TRAIN_PACKAGES, check_packages
    from pipelines.doctor.probe import probe

    torch = probe("cuda")
    return [
        *training.check_torch(torch, gpu_wanted=gpu_wanted),
        training.check_deepspeed(),
        *check_packages(TRAIN_PACKAGES, "train"),
        training.check_nvdiffrast(on_gpu=bool(torch.value and torch.value["devices"])),
        training.check_lpips(vgg, linear),
        training.check_hub_cache(),
        training.check_compiler(),
        machine.check_shared_memory("--loader-workers, NCCL"),
    ]


def _reach(arguments: argparse.Namespace) -> list[Finding]:
    from pipelines.doctor.reach import check_objaverse, check_root_uri

    online = [check_objaverse()] if arguments.online else []
    return online + (check_root_uri(arguments.root) if arguments.root is not None else [])


def _show(title: str, findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.text import Text

    from pipelines.cli.tables import make_table

    table = make_table(title, ["check", "state", "found", "needed for"], [])
    for item in findings:
        words = (item.what, item.state, printable(item.found), item.needed_for)
        table.add_row(*(Text(word, overflow="fold") for word in words))
    console = Console(highlight=False)
    console.print(table)
    # Below the table, because its cells would break commands that people copy.
    for item in findings:
        if item.remedy:
            console.print(Text(f"{item.what}: {printable(item.remedy)}"), soft_wrap=True)
    console.print()


COMMAND = Command(
    example="lrm doctor --for build --for gpu",
    options=_options,
    run=_run,
)
