"""`lrm evaluate`: a model, or meshes of any origin, by the measures of the paper."""

import argparse
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import BadInput, WorkFailed
from core.options import Parser, add_json_option, add_old_option
from core.outputs import check_writable
from pipelines.cli.checkpoint_options import add_checkpoint_options, open_checkpoint
from pipelines.cli.command import Command
from pipelines.cli.commands.multiview import check_sampling, open_pipeline, pipeline_folder
from pipelines.cli.torch_options import add_lpips_options, open_device
from train.evaluation.protocol import NUM_POINTS, THRESHOLD
from train.models.zero123plus.sampling_defaults import GUIDANCE_SCALE, NUM_STEPS, VIEW_SIZE

if TYPE_CHECKING:
    from pipelines.evaluation.evaluate import (
        ByMeshes,
        ByModel,
        ByPipeline,
        FolderTruths,
        SnapshotTruths,
    )
    from render.process import BlenderProcess
    from train.evaluation.predict import Generate
    from train.models.lpips import Lpips


__all__ = [
    "COMMAND",
]

_NAMES = {
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
    truth = parser.add_argument_group("the truth")
    truth.add_argument("--root", metavar="URI", help="folder or URI of a dataset")
    truth.add_argument("--snapshot", metavar="ID", help="id of its snapshot")
    truth.add_argument(
        "--split",
        choices=("validation", "train", "all"),
        default="validation",
        help="which samples of it [default: validation]",
    )
    truth.add_argument("--truth", metavar="DIR", help="or a folder of GLB files, named by object")
    truth.add_argument(
        "--rig", default="orbit21", help="with --truth: the cameras [default: orbit21]"
    )
    truth.add_argument("--limit", type=int, metavar="N", help="only the first N objects")
    judged = parser.add_argument_group("what is judged")
    judged.add_argument(
        "--meshes", metavar="DIR", help="meshes (.glb, .obj, .ply) named by asset id or uid"
    )
    judged.add_argument("--self-check", action="store_true", help="the files of --truth themselves")
    add_checkpoint_options(parser)
    parser.add_argument(
        "--pipeline",
        metavar="FOLDER",
        help="Zero123++ makes six views of view 0 of each object, which are judged beside the "
        "truth's (rig zero123plus) and are what a model sees; without it, a model sees six views "
        "of the truth",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=NUM_STEPS,
        metavar="N",
        help=f"of --pipeline [default: {NUM_STEPS}]",
    )
    parser.add_argument(
        "--guidance",
        type=float,
        default=GUIDANCE_SCALE,
        metavar="G",
        help=f"of --pipeline; 1 or less: none [default: {GUIDANCE_SCALE:g}]",
    )
    parser.add_argument(
        "--view-size",
        type=int,
        default=VIEW_SIZE,
        metavar="PIXELS",
        help=f"side of a view of --pipeline [default: {VIEW_SIZE}]",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="gets the tables")
    parser.add_argument(
        "--points",
        type=int,
        default=NUM_POINTS,
        metavar="N",
        help=f"on each surface [default: {NUM_POINTS}]",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=THRESHOLD,
        metavar="D",
        help=f"of the F-score, in [-1, 1]^3 [default: {THRESHOLD}]",
    )
    parser.add_argument("--seed", type=int, default=0, help="of points and bootstrap [default: 0]")
    parser.add_argument(
        "--render.resolution",
        dest="render_size",
        type=int,
        default=320,
        metavar="PIXELS",
        help="side of what Blender renders [default: 320]",
    )
    add_old_option(parser, "--render-size", "--render.resolution")
    parser.add_argument("--no-lpips", action="store_true", help="do without LPIPS and its weights")
    add_lpips_options(parser)
    add_json_option(parser)


def _run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    _check(arguments)
    from pipelines.evaluation.evaluate import Protocol16K, evaluate_objects

    out = Path(arguments.out)
    check_writable(out)
    lpips, lpips_weights = _lpips(arguments)
    protocol = Protocol16K(
        num_points=arguments.points,
        threshold=arguments.threshold,
        seed=arguments.seed,
        lpips=lpips,
        lpips_weights=lpips_weights,
    )
    with _blender() as blender:
        truths = _truths(arguments, blender)
        predictor = _predictor(arguments, blender)
        found = evaluate_objects(truths, predictor, protocol, out, arguments.limit)
    if arguments.json:
        print(json.dumps(found))
    else:
        _show(found, out)
    if found["failed"]:
        name, why = next(iter(found["failed"].items()))
        raise WorkFailed(f"{len(found['failed'])} objects failed; the first: {name}: {why}")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raise BadInput for options that do not go together."""
    from_dataset = arguments.root is not None or arguments.snapshot is not None
    if from_dataset == (arguments.truth is not None):
        raise BadInput("give the truth: --root URI --snapshot ID, or --truth DIR")
    if from_dataset and None in (arguments.root, arguments.snapshot):
        raise BadInput("--root and --snapshot belong together")
    by_model = arguments.mesh is not None or arguments.nerf is not None
    by_files = [arguments.meshes is not None, arguments.self_check]
    if sum([by_model or arguments.pipeline is not None, *by_files]) != 1:
        raise BadInput(
            "give what is judged: a model (--mesh or --nerf CHECKPOINT, --pipeline FOLDER), or "
            "--meshes DIR, or --self-check"
        )
    if arguments.self_check and from_dataset:
        raise BadInput("--self-check judges the files of --truth DIR")
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
    """The metric, and the states of its weights' files."""
    from pipelines.evaluation.evaluate_log import state_of
    from train.models.lpips import LpipsConfig, find_weights, load_lpips

    if arguments.no_lpips:
        return None, None
    config = LpipsConfig(vgg=arguments.lpips_vgg, linear=arguments.lpips_linear)
    return load_lpips(config), [state_of(path) for path in find_weights(config)]


@contextlib.contextmanager
def _blender() -> "Iterator[BlenderProcess]":
    """A child with all cores, which starts when a file is to be shown."""
    from render.process import BlenderProcess
    from render.render_config import BlenderLimits

    limits = BlenderLimits(threads=len(os.sched_getaffinity(0)))
    with BlenderProcess(limits) as process:
        yield process


def _truths(
    arguments: argparse.Namespace, blender: "BlenderProcess"
) -> "SnapshotTruths | FolderTruths":
    from dataset.root import open_root
    from dataset.snapshots.snapshot import open_snapshot
    from pipelines.evaluation.evaluate import FolderTruths, SnapshotTruths
    from pipelines.evaluation.evaluate_meshes import MeshFolder
    from render.rigs import get_rig

    if arguments.truth is not None:
        meshes, rig = MeshFolder(Path(arguments.truth), blender), get_rig(arguments.rig)
        sizes = (arguments.render_size, arguments.points, arguments.seed)
        return FolderTruths(meshes, rig, *sizes)
    root = open_root(arguments.root)
    snapshot = open_snapshot(root, arguments.snapshot)
    split = arguments.split
    samples = snapshot.samples if split == "all" else snapshot.of_split(split)
    if not len(samples):
        raise BadInput(f"snapshot {arguments.snapshot} has no sample of --split {split}")
    return SnapshotTruths(root, samples, arguments.points)


def _predictor(
    arguments: argparse.Namespace, blender: "BlenderProcess"
) -> "ByMeshes | ByModel | ByPipeline":
    from pipelines.evaluation.evaluate import ByMeshes, ByModel, ByPipeline
    from pipelines.evaluation.evaluate_meshes import MeshFolder

    points, seed = arguments.points, arguments.seed
    if arguments.self_check or arguments.meshes is not None:
        folder = Path(arguments.truth if arguments.self_check else arguments.meshes)
        # Points of its own: the same ones would find themselves, whatever is measured.
        seed = seed + 1 if arguments.self_check else seed
        return ByMeshes(MeshFolder(folder, blender), points, seed)
    identity, generate = _model_identity(arguments), _generate(arguments)
    if arguments.mesh is None and arguments.nerf is None:
        assert generate is not None
        return ByPipeline(generate, identity)
    return ByModel(open_checkpoint(arguments), points, seed, generate, identity)


def _model_identity(arguments: argparse.Namespace) -> Any:
    """Weights by their files' states, and the settings that matter."""
    from pipelines.evaluation.evaluate_log import state_of

    settings = {
        name: getattr(arguments, name) for name in ("nerf", "mesh", "preset", "model", "resolution")
    }
    checkpoint = arguments.mesh or arguments.nerf
    weights = [] if checkpoint is None else [state_of(Path(checkpoint).expanduser())]
    if arguments.pipeline is not None:
        names = ("pipeline", "steps", "guidance", "view_size")
        settings |= {name: getattr(arguments, name) for name in names}
        weights.append(state_of(pipeline_folder(arguments.pipeline)))
    # A GPU rounds otherwise, and runs Zero123++ in half precision.
    return [settings, weights, open_device(arguments.device).type]


def _generate(arguments: argparse.Namespace) -> "Generate | None":
    if arguments.pipeline is None:
        return None
    from train.evaluation.generate import six_views_of_first
    from train.inference.views_file import read_distance

    pipeline = open_pipeline(arguments.pipeline, open_device(arguments.device), "auto")
    return six_views_of_first(
        pipeline,
        steps=arguments.steps,
        guidance=arguments.guidance,
        seed=arguments.seed,
        view_size=arguments.view_size,
        distance=read_distance(pipeline_folder(arguments.pipeline)),
    )


def _show(found: dict[str, Any], out: Path) -> None:
    from rich.console import Console

    from pipelines.cli.tables import make_table
    from pipelines.evaluation.evaluate import OBJECTS, SUMMARY

    title = f"{found['objects']} objects"
    table = make_table(title, ["metric"], ["mean", "95 % from", "to", "median", "objects"])
    for name, values in found["metrics"].items():
        numbers = [values[key] for key in ("mean", "low", "high", "median")]
        shown = ["" if number is None else f"{number:.4f}" for number in numbers]
        table.add_row(_NAMES[name], *shown, str(values["objects"]))
    console = Console(highlight=False)
    console.print(table)
    by_shape = "psnr" in found["metrics"]
    if by_shape and "chamfer" not in found["metrics"]:
        console.print("no geometry to compare with: lrm build --geometry adds it", soft_wrap=True)
    if found["missing"]:
        console.print(f"{len(found['missing'])} objects of the truth have no mesh", soft_wrap=True)
    console.print(f"{out / OBJECTS}, {out / SUMMARY}", soft_wrap=True, markup=False)


COMMAND = Command(
    example="lrm evaluate --root DATASET --snapshot ID --mesh RUN --out RESULT",
    options=_options,
    run=_run,
)
