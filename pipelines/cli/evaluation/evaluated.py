"""What the options of `lrm evaluate` name: the ground truth, the predictions, and LPIPS."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import BadInput
from pipelines.cli.checkpoint_options import chosen_model, open_checkpoint
from pipelines.cli.torch_options import open_device

if TYPE_CHECKING:
    from pipelines.evaluation.ground_truths import FolderGroundTruths, SnapshotGroundTruths
    from pipelines.evaluation.predictors import MeshPredictor, ModelPredictor, MultiviewPredictor
    from render.process import BlenderProcess
    from train.evaluation.predict import Generate
    from train.evaluation.protocols.shape_protocol import ShapeProtocol
    from train.models.lpips import Lpips

__all__ = ["open_lpips", "open_predictor", "open_truths"]


def open_lpips(
    arguments: argparse.Namespace, protocol: "ShapeProtocol"
) -> "tuple[Lpips | None, Any]":
    """Return the metric and the state of each of its weight files; None without pictures."""
    from pipelines.evaluation.evaluate_log import file_fingerprint
    from train.models.lpips import LpipsConfig, find_weights, load_lpips

    if arguments.no_lpips or _shape_option(arguments, protocol):
        return None, None
    config = LpipsConfig(vgg=arguments.lpips_vgg, linear=arguments.lpips_linear)
    return load_lpips(config), [file_fingerprint(path) for path in find_weights(config)]


def open_truths(
    arguments: argparse.Namespace, protocol: "ShapeProtocol", blender: "BlenderProcess"
) -> "SnapshotGroundTruths | FolderGroundTruths":
    """Return the ground truth of the options. Raises BadInput."""
    from dataset.root import open_root
    from dataset.snapshots.snapshot import open_snapshot
    from pipelines.evaluation.evaluate_meshes import MeshFolder
    from pipelines.evaluation.ground_truths import FolderGroundTruths, SnapshotGroundTruths
    from render.rigs import get_rig

    if arguments.truth is not None:
        meshes, rig = MeshFolder(Path(arguments.truth), blender), get_rig(arguments.rig)
        sizes = (arguments.render_size, arguments.points, arguments.seed)
        # Files need no views if only shapes are compared; a model still needs them as input.
        by_files = arguments.self_check or arguments.meshes is not None
        has_views = protocol.has_pictures or not by_files
        return FolderGroundTruths(meshes, rig if has_views else None, *sizes)
    root = open_root(arguments.root)
    snapshot = open_snapshot(root, arguments.snapshot)
    split = arguments.split
    samples = snapshot.samples if split == "all" else snapshot.of_split(split)
    if not len(samples):
        raise BadInput(f"snapshot {arguments.snapshot} has no samples in --split {split}")
    only_shapes = _shape_option(arguments, protocol)
    if only_shapes and all(sample.geometry is None for sample in samples):
        raise BadInput(
            f"{only_shapes} compares shapes, but snapshot {arguments.snapshot} has no geometry; "
            "add it with `lrm build --geometry`, then `lrm snapshot`"
        )
    return SnapshotGroundTruths(root, samples, arguments.points)


def open_predictor(
    arguments: argparse.Namespace,
    protocol: "ShapeProtocol",
    blender: "BlenderProcess",
    open_pipeline: "Callable[[argparse.Namespace], Generate | None]",
) -> "MeshPredictor | ModelPredictor | MultiviewPredictor":
    """Return what the options evaluate. Raises BadInput."""
    from pipelines.evaluation.evaluate_meshes import MeshFolder
    from pipelines.evaluation.predictors import MeshPredictor, ModelPredictor, MultiviewPredictor

    points, seed = arguments.points, arguments.seed
    if arguments.self_check or arguments.meshes is not None:
        folder = Path(arguments.truth if arguments.self_check else arguments.meshes)
        # Another seed: with the same points every distance would be 0.
        seed = seed + 1 if arguments.self_check else seed
        return MeshPredictor(
            MeshFolder(folder, blender), points, seed, pictures=protocol.has_pictures
        )
    if not protocol.has_pictures and arguments.use is None:
        raise BadInput(
            f"--protocol {arguments.protocol} compares shapes, and --pipeline alone predicts none; "
            "give a model, too"
        )
    identity, generate = _model_identity(arguments), open_pipeline(arguments)
    if arguments.use is None:
        assert generate is not None
        return MultiviewPredictor(generate, identity)
    model, pictures = open_checkpoint(arguments), protocol.has_pictures
    return ModelPredictor(model, points, seed, generate, identity, pictures=pictures)


def _shape_option(arguments: argparse.Namespace, protocol: "ShapeProtocol") -> str:
    """Return the option because of which no pictures are compared; empty if they are."""
    if not protocol.has_pictures:
        return f"--protocol {arguments.protocol}"
    if arguments.use is not None and not chosen_model(arguments).family.has_colours:
        return f"--use {arguments.use[0]}"
    return ""


def _model_identity(arguments: argparse.Namespace) -> Any:
    """Return what results depend on: settings, the state of the weights' files, device type."""
    from pipelines.evaluation.evaluate_log import file_fingerprint

    sizes = {name: getattr(arguments, name) for name in ("preset", "model", "resolution")}
    settings = {"nerf": None, "mesh": None, **sizes}
    weights = []
    if arguments.use is not None:
        chosen = chosen_model(arguments)
        settings[chosen.family.name] = chosen.text
        weights.append(file_fingerprint(chosen.source))
        if (template := chosen.options.template) is not None:
            settings["template"] = str(template)
            weights.append(file_fingerprint(template))
    if arguments.pipeline is not None:
        from train.models.zero123plus.pipeline_files import local_folder

        names = ("pipeline", "steps", "guidance", "view_size")
        settings |= {name: getattr(arguments, name) for name in names}
        weights.append(file_fingerprint(local_folder(arguments.pipeline)))
    # A GPU rounds differently and runs Zero123++ in half precision.
    return [settings, weights, open_device(arguments.device).type]
