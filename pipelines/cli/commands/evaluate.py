"""`lrm evaluate`: score a model, or meshes of any origin, with the metrics of the paper."""

import argparse
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import BadInput, WorkFailed
from core.options import Parser, add_json_option, add_old_option
from core.options.bounds import at_most
from core.outputs import check_writable
from pipelines.cli.checkpoint_options import add_checkpoint_options, open_checkpoint
from pipelines.cli.command import Command
from pipelines.cli.commands.multiview import check_sampling, load_pipeline
from pipelines.cli.tables import counted
from pipelines.cli.torch_options import add_lpips_options, open_device
from train.evaluation.protocol import NUM_POINTS, THRESHOLD
from train.models.zero123plus.sampling_defaults import GUIDANCE_SCALE, NUM_STEPS, VIEW_SIZE

if TYPE_CHECKING:
    from pipelines.evaluation.evaluate import (
        FolderGroundTruths,
        MeshPredictor,
        ModelPredictor,
        MultiviewPredictor,
        SnapshotGroundTruths,
    )
    from render.process import BlenderProcess
    from train.evaluation.predict import Generate
    from train.models.lpips import Lpips


__all__ = [
    "COMMAND",
]

_METRIC_TITLES = {
    "psnr": "PSNR [dB]",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "mask_iou": "mask IoU",
    "chamfer": "Chamfer distance",
    "f_score": "F-score",
    "views_psnr": "PSNR of the six views [dB]",
    "views_ssim": "SSIM of the six views",
    "views_lpips": "LPIPS of the six views",
    "background_deviation": "background deviation",
    "background_deviation_95": "background deviation, 95th percentile",
    "background_spread": "background spread",
    "seconds": "seconds",
}


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
        "--points",
        type=at_most(int, 10**8),
        default=NUM_POINTS,
        metavar="N",
        help="Points sampled on each surface.",
    )
    parser.add_argument(
        "--threshold",
        type=at_most(float, 1e6),
        default=THRESHOLD,
        metavar="D",
        help="Distance threshold of the F-score; the object is in the cube from -1 to 1.",
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
    from pipelines.evaluation.evaluate import EvaluationProtocol, evaluate_objects

    out = Path(arguments.out)
    check_writable(out)
    lpips, lpips_weights = _lpips(arguments)
    protocol = EvaluationProtocol(
        num_points=arguments.points,
        threshold=arguments.threshold,
        seed=arguments.seed,
        lpips=lpips,
        lpips_weights=lpips_weights,
    )
    with _blender() as blender:
        truths = _truths(arguments, blender)
        predictor = _predictor(arguments, blender)
        summary = evaluate_objects(truths, predictor, protocol, out, arguments.limit)
    if arguments.json:
        print(json.dumps(summary))
    else:
        _show(summary, out)
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
    by_model = arguments.mesh is not None or arguments.nerf is not None
    by_files = [arguments.meshes is not None, arguments.self_check]
    if sum([by_model or arguments.pipeline is not None, *by_files]) != 1:
        raise BadInput(
            "give one thing to evaluate: a model (--mesh or --nerf CHECKPOINT, --pipeline FOLDER), "
            "--meshes DIR, or --self-check"
        )
    if arguments.self_check and from_dataset:
        raise BadInput("--self-check evaluates the files of --truth DIR, not of a dataset")
    sides = {"--render.resolution": arguments.render_size, "--view-size": arguments.view_size}
    positive = sides | {
        "--points": arguments.points,
        "--steps": arguments.steps,
        "--threshold": arguments.threshold,
        "--limit": 1 if arguments.limit is None else arguments.limit,
    }
    for option, value in positive.items():
        if value <= 0:
            raise BadInput(f"{option} must be above 0")
    for option, side in sides.items():
        if side < 16:
            raise BadInput(f"{option} must be at least 16")
    check_sampling(arguments)


def _lpips(arguments: argparse.Namespace) -> "tuple[Lpips | None, Any]":
    """Return the metric, and the state of each of its files of weights."""
    from pipelines.evaluation.evaluate_log import file_fingerprint
    from train.models.lpips import LpipsConfig, find_weights, load_lpips

    if arguments.no_lpips:
        return None, None
    config = LpipsConfig(vgg=arguments.lpips_vgg, linear=arguments.lpips_linear)
    return load_lpips(config), [file_fingerprint(path) for path in find_weights(config)]


@contextlib.contextmanager
def _blender() -> "Iterator[BlenderProcess]":
    """Yield a Blender child with all cores; it starts when the first file is rendered."""
    from render.process import BlenderProcess
    from render.render_config import BlenderLimits

    limits = BlenderLimits(threads=len(os.sched_getaffinity(0)))
    with BlenderProcess(limits) as process:
        yield process


def _truths(
    arguments: argparse.Namespace, blender: "BlenderProcess"
) -> "SnapshotGroundTruths | FolderGroundTruths":
    from dataset.root import open_root
    from dataset.snapshots.snapshot import open_snapshot
    from pipelines.evaluation.evaluate import FolderGroundTruths, SnapshotGroundTruths
    from pipelines.evaluation.evaluate_meshes import MeshFolder
    from render.rigs import get_rig

    if arguments.truth is not None:
        meshes, rig = MeshFolder(Path(arguments.truth), blender), get_rig(arguments.rig)
        sizes = (arguments.render_size, arguments.points, arguments.seed)
        return FolderGroundTruths(meshes, rig, *sizes)
    root = open_root(arguments.root)
    snapshot = open_snapshot(root, arguments.snapshot)
    split = arguments.split
    samples = snapshot.samples if split == "all" else snapshot.of_split(split)
    if not len(samples):
        raise BadInput(f"snapshot {arguments.snapshot} has no samples in --split {split}")
    return SnapshotGroundTruths(root, samples, arguments.points)


def _predictor(
    arguments: argparse.Namespace, blender: "BlenderProcess"
) -> "MeshPredictor | ModelPredictor | MultiviewPredictor":
    from pipelines.evaluation.evaluate import MeshPredictor, ModelPredictor, MultiviewPredictor
    from pipelines.evaluation.evaluate_meshes import MeshFolder

    points, seed = arguments.points, arguments.seed
    if arguments.self_check or arguments.meshes is not None:
        folder = Path(arguments.truth if arguments.self_check else arguments.meshes)
        # Another seed: with the same points every distance would be 0.
        seed = seed + 1 if arguments.self_check else seed
        return MeshPredictor(MeshFolder(folder, blender), points, seed)
    identity, generate = _model_identity(arguments), _generate(arguments)
    if arguments.mesh is None and arguments.nerf is None:
        assert generate is not None
        return MultiviewPredictor(generate, identity)
    return ModelPredictor(open_checkpoint(arguments), points, seed, generate, identity)


def _model_identity(arguments: argparse.Namespace) -> Any:
    """Return what results depend on: settings, the state of the weights' files, device type."""
    from pipelines.evaluation.evaluate_log import file_fingerprint

    settings = {
        name: getattr(arguments, name) for name in ("nerf", "mesh", "preset", "model", "resolution")
    }
    checkpoint = arguments.mesh or arguments.nerf
    weights = [] if checkpoint is None else [file_fingerprint(Path(checkpoint).expanduser())]
    if arguments.pipeline is not None:
        from train.models.zero123plus.pipeline_files import local_folder

        names = ("pipeline", "steps", "guidance", "view_size")
        settings |= {name: getattr(arguments, name) for name in names}
        weights.append(file_fingerprint(local_folder(arguments.pipeline)))
    # A GPU rounds differently and runs Zero123++ in half precision.
    return [settings, weights, open_device(arguments.device).type]


def _generate(arguments: argparse.Namespace) -> "Generate | None":
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


def _show(summary: dict[str, Any], out: Path) -> None:
    from rich.console import Console

    from pipelines.cli.tables import make_table
    from pipelines.evaluation.evaluate import OBJECTS, SUMMARY

    title = counted(summary["objects"], "object")
    table = make_table(title, ["metric"], ["mean", "95 % from", "to", "median", "objects"])
    for name, values in summary["metrics"].items():
        numbers = [values[key] for key in ("mean", "low", "high", "median")]
        shown = ["" if number is None else f"{number:.4f}" for number in numbers]
        table.add_row(_METRIC_TITLES[name], *shown, str(values["objects"]))
    console = Console(highlight=False)
    console.print(table)
    has_shapes = "psnr" in summary["metrics"]
    if has_shapes and "chamfer" not in summary["metrics"]:
        line = "no Chamfer distance: the dataset has no geometry; lrm build --geometry adds it"
        console.print(line, soft_wrap=True)
    if summary["missing"]:
        missing = counted(len(summary["missing"]), "object")
        console.print(f"no mesh for {missing} of the ground truth", soft_wrap=True)
    line = f"per object: {out / OBJECTS}; summary: {out / SUMMARY}"
    console.print(line, soft_wrap=True, markup=False)


COMMAND = Command(
    example="lrm evaluate --root DATASET --snapshot SNAPSHOT --mesh RUN --out RESULT",
    options=_options,
    run=_run,
    common=(
        *("--root", "--snapshot", "--split", "--truth", "--rig", "--limit", "--out"),
        *("--meshes", "--self-check", "--mesh", "--nerf", "--pipeline", "--preset", "--resolution"),
        *("--points", "--threshold", "--no-lpips", "--seed", "--device", "--json"),
    ),
)
