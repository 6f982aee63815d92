"""`lrm evaluate`: score a model, or meshes of any origin, with the metrics of a paper."""

import argparse
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import BadInput, WorkFailed
from core.options import Parser, add_json_option, add_old_option
from core.options.bounds import at_most
from core.outputs import check_writable
from pipelines.cli.checkpoint_options import add_checkpoint_options, chosen_model
from pipelines.cli.command import Command
from pipelines.cli.commands.multiview import check_sampling, load_pipeline
from pipelines.cli.evaluation.evaluated import open_lpips, open_predictor, open_truths
from pipelines.cli.tables import counted
from pipelines.cli.torch_options import add_lpips_options, open_device
from train.evaluation.protocols.registry import (
    DEFAULT_PROTOCOL,
    NUM_POINTS,
    PROTOCOLS,
    make_protocol,
)
from train.models.zero123plus.sampling_defaults import GUIDANCE_SCALE, NUM_STEPS, VIEW_SIZE

if TYPE_CHECKING:
    from render.process import BlenderProcess
    from train.evaluation.predict import Generate

__all__ = [
    "COMMAND",
]


def _options(parser: Parser) -> None:
    """Add the options of the command."""
    truth = parser.add_argument_group("ground truth")
    truth.add_argument("--root", metavar="URI", help="Folder or URI of a dataset.")
    truth.add_argument(
        "--snapshot",
        metavar="SNAPSHOT",
        help="Snapshot of it: id, start of an id, name, or latest.",
    )
    truth.add_argument(
        "--split",
        choices=("validation", "train", "all"),
        default="validation",
        help="Samples of the snapshot to evaluate.",
    )
    truth.add_argument(
        "--truth",
        metavar="DIR",
        help="Folder of GLB files, named by object, as the ground truth instead of a dataset.",
    )
    truth.add_argument(
        "--rig", default="orbit21", help="With --truth: camera layout of the rendered views."
    )
    truth.add_argument(
        "--limit", type=at_most(int, 10**9), metavar="N", help="Evaluate only the first N objects."
    )
    candidates = parser.add_argument_group("what is evaluated")
    candidates.add_argument(
        "--meshes", metavar="DIR", help="Meshes (.glb, .obj, .ply) named by asset id or uid."
    )
    candidates.add_argument(
        "--self-check",
        action="store_true",
        help="Evaluate the files of --truth against themselves: the scores of a perfect result.",
    )
    add_checkpoint_options(parser)
    parser.add_argument(
        "--pipeline",
        metavar="FOLDER",
        help="Zero123++: the folder of its pipeline, or a repository in the hub's cache. It "
        "generates six views from view 0 of each object. They are compared with "
        "the ground truth (rig zero123plus), and a model gets them as input. Without this option "
        "a model gets six views of the ground truth.",
    )
    parser.add_argument(
        "--steps",
        type=at_most(int, 1000),
        default=NUM_STEPS,
        metavar="N",
        help="Denoising steps of --pipeline.",
    )
    parser.add_argument(
        "--guidance",
        type=at_most(float, 1e6),
        default=GUIDANCE_SCALE,
        metavar="G",
        help="Guidance scale of --pipeline; 1 or less switches guidance off.",
    )
    parser.add_argument(
        "--view-size",
        type=at_most(int, 4096),
        default=VIEW_SIZE,
        metavar="PIXELS",
        help="Side of a view of --pipeline, in pixels.",
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="Folder to write the tables to."
    )
    parser.add_argument(
        "--protocol",
        choices=tuple(PROTOCOLS),
        default=DEFAULT_PROTOCOL,
        help="Paper whose metrics are computed. instantmesh: pictures, and shapes aligned by their "
        "boxes; pixel2mesh: squared distances of unaligned shapes, per category.",
    )
    parser.add_argument(
        "--points",
        type=at_most(int, 10**8),
        default=NUM_POINTS,
        metavar="N",
        help="Points sampled on each surface.",
    )
    parser.add_argument(
        "--threshold",
        type=at_most(float, 1e6),
        metavar="D",
        help="With --protocol instantmesh: distance threshold of the F-score (default: "
        f"{PROTOCOLS['instantmesh'].settings['threshold']}); the object is in the cube from -1 to "
        "1.",
    )
    parser.add_argument(
        "--seed",
        type=at_most(int, 2**63),
        default=0,
        metavar="N",
        help="Seed of the points, the bootstrap and the noise of --pipeline.",
    )
    parser.add_argument(
        "--render.resolution",
        dest="render_size",
        type=at_most(int, 16_384),
        default=320,
        metavar="PIXELS",
        help="Side of the pictures that Blender renders, in pixels.",
    )
    add_old_option(parser, "--render-size", "--render.resolution")
    parser.add_argument(
        "--no-lpips", action="store_true", help="Skip LPIPS; its weights are not needed then."
    )
    add_lpips_options(parser)
    add_json_option(parser)


def _run(arguments: argparse.Namespace) -> int:
    """Evaluate the objects and write the tables."""
    _check(arguments)
    protocol = make_protocol(arguments.protocol, {"threshold": arguments.threshold})
    from pipelines.cli.evaluation.score_tables import show_scores
    from pipelines.evaluation.evaluate import EvaluationSettings, evaluate_objects

    out = Path(arguments.out)
    check_writable(out)
    lpips, lpips_weights = open_lpips(arguments, protocol)
    settings = EvaluationSettings(
        name=arguments.protocol,
        protocol=protocol,
        num_points=arguments.points,
        seed=arguments.seed,
        lpips=lpips,
        lpips_weights=lpips_weights,
    )
    with _blender() as blender:
        truths = open_truths(arguments, protocol, blender)
        predictor = open_predictor(arguments, protocol, blender, _open_pipeline)
        summary = evaluate_objects(truths, predictor, settings, out, arguments.limit)
    if arguments.json:
        print(json.dumps(summary))
    else:
        show_scores(summary, settings.titles, out)
    if summary["failed"]:
        name, why = next(iter(summary["failed"].items()))
        count = counted(len(summary["failed"]), "object")
        raise WorkFailed(f"{count} failed; the first: {name}: {why}")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raise BadInput for options that exclude or require each other."""
    from_dataset = arguments.root is not None or arguments.snapshot is not None
    if from_dataset == (arguments.truth is not None):
        raise BadInput("give the ground truth: --root URI --snapshot SNAPSHOT, or --truth DIR")
    if from_dataset and None in (arguments.root, arguments.snapshot):
        raise BadInput("give --root and --snapshot together")
    by_model = arguments.use is not None
    by_files = [arguments.meshes is not None, arguments.self_check]
    if sum([by_model or arguments.pipeline is not None, *by_files]) != 1:
        raise BadInput(
            "give one thing to evaluate: a model (--use FAMILY:CHECKPOINT, --pipeline FOLDER), "
            "--meshes DIR, or --self-check"
        )
    if by_model:
        family = chosen_model(arguments).family
        if arguments.pipeline is not None and family.num_views == 1:
            raise BadInput(
                f"--pipeline generates six views, but {family.name} takes one picture; leave it out"
            )
    if arguments.self_check and from_dataset:
        raise BadInput("--self-check evaluates the files of --truth DIR, not of a dataset")
    sides = {"--render.resolution": arguments.render_size, "--view-size": arguments.view_size}
    positive = sides | {
        "--points": arguments.points,
        "--steps": arguments.steps,
        "--threshold": 1 if arguments.threshold is None else arguments.threshold,
        "--limit": 1 if arguments.limit is None else arguments.limit,
    }
    for option, value in positive.items():
        if value <= 0:
            raise BadInput(f"{option} must be above 0")
    for option, side in sides.items():
        if side < 16:
            raise BadInput(f"{option} must be at least 16")
    check_sampling(arguments)


@contextlib.contextmanager
def _blender() -> "Iterator[BlenderProcess]":
    """Yield a Blender child with all cores; it starts when the first file is rendered."""
    from render.process import BlenderProcess
    from render.render_config import BlenderLimits

    limits = BlenderLimits(threads=len(os.sched_getaffinity(0)))
    with BlenderProcess(limits) as process:
        yield process


def _open_pipeline(arguments: argparse.Namespace) -> "Generate | None":
    if arguments.pipeline is None:
        return None
    from train.evaluation.generate import six_view_generator
    from train.inference.views_file import read_distance
    from train.models.zero123plus.pipeline_files import local_folder

    pipeline = load_pipeline(arguments.pipeline, open_device(arguments.device), "auto")
    return six_view_generator(
        pipeline,
        steps=arguments.steps,
        guidance=arguments.guidance,
        seed=arguments.seed,
        view_size=arguments.view_size,
        distance=read_distance(local_folder(arguments.pipeline)),
    )


COMMAND = Command(
    example="lrm evaluate --root DATASET --snapshot SNAPSHOT --mesh RUN --out RESULT",
    options=_options,
    run=_run,
    common=(
        *("--root", "--snapshot", "--split", "--truth", "--rig", "--limit", "--out"),
        *("--meshes", "--self-check", "--use", "--mesh", "--nerf", "--pipeline"),
        *("--protocol", "--points", "--threshold", "--no-lpips", "--seed", "--device", "--json"),
    ),
)
