"""`lrm reconstruct`: meshes of objects, from six views or from one picture each."""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import BadInput, WorkFailed
from core.options import Parser, add_json_option
from core.options.bounds import at_most
from core.outputs import check_writable, writing
from core.quantities import counted
from pipelines.cli.checkpoint_options import add_checkpoint_options, chosen_model, open_checkpoint
from pipelines.cli.command import Command
from train.inference.picture_camera import (
    DISTANCE,
    ELEVATION,
    FIELD_OF_VIEW,
    PictureCamera,
    check_distance,
)

if TYPE_CHECKING:
    from pipelines.reconstruction.reconstruct_pictures import PictureReconstructor

__all__ = [
    "COMMAND",
]

_OF_PICTURES = ("format", "fov", "elevation", "keep_framing")
"""Options of families that take one picture."""


def _options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE_OR_DIR",
        help="With mesh and nerf: six views, as a sheet of 3 rows and 2 columns or a folder of six "
        "pictures, as lrm multiview writes them. With pixel2mesh: pictures of one object each.",
    )
    add_checkpoint_options(parser)
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="Mesh to write: .glb, .obj or .ply. For several pictures, the folder for their "
        "meshes.",
    )
    parser.add_argument(
        "--format",
        choices=("glb", "obj", "ply"),
        help="With one picture: glb, obj or ply; --out is then a folder for a single picture, too. "
        "[default: glb]",
    )
    parser.add_argument(
        "--texture",
        type=at_most(int, 16_384),
        metavar="SIZE",
        help="Bake a texture with a side of SIZE pixels, instead of vertex colours (.glb, .obj).",
    )
    _add_camera_options(parser)
    add_json_option(parser)


def _add_camera_options(parser: Parser) -> None:
    parser.add_argument(
        "--distance",
        type=at_most(float, 1e6),
        metavar="D",
        help="Distance of the cameras from the origin. [default: of six views, the one that "
        "lrm multiview wrote to their folder, otherwise 4, as in InstantMesh; of one picture "
        f"{DISTANCE:g}]",
    )
    parser.add_argument(
        "--azimuth",
        type=at_most(float, 3600),
        default=-90.0,
        metavar="DEGREES",
        help="Azimuth from which the input picture shows the object, in degrees; -90 is the front "
        "of a glTF model, 0 leaves the mesh in the frame of the model's cameras.",
    )
    parser.add_argument(
        "--elevation",
        type=at_most(float, 3600),
        metavar="DEGREES",
        help="With one picture: elevation from which it shows the object. "
        f"[default: {ELEVATION:g}]",
    )
    parser.add_argument(
        "--fov",
        type=at_most(float, 3600),
        metavar="DEGREES",
        help=f"With one picture: field of view of the square picture. [default: {FIELD_OF_VIEW:g}]",
    )
    parser.add_argument(
        "--keep-framing",
        action="store_true",
        default=None,
        help="With one picture: mask the object, but do not move or scale it in the picture.",
    )


def _run(arguments: argparse.Namespace) -> int:
    """Reconstruct the meshes and write them."""
    family = chosen_model(arguments).family
    if arguments.texture is not None and not family.has_colours:
        raise BadInput(f"--texture: {family.name} predicts no colours; leave --texture out")
    if family.num_views == 1:
        return _from_pictures(arguments)
    for option in _OF_PICTURES:
        if getattr(arguments, option) is not None:
            raise BadInput(
                f"--{option.replace('_', '-')}: {family.name} takes the six views of "
                "lrm multiview; this option is for families that take one picture"
            )
    if len(arguments.images) > 1:
        raise BadInput(
            f"{arguments.images[1]}: {family.name} makes one mesh of six views; give them as one "
            "sheet or one folder"
        )
    return _from_six_views(arguments)


def _from_six_views(arguments: argparse.Namespace) -> int:
    from train.inference.mesh_files import check_mesh_path, write_mesh
    from train.inference.six_views import (
        camera_tensors,
        input_cameras,
        read_views,
        stack_views,
    )
    from train.inference.views_file import read_distance

    out = Path(arguments.out)
    check_mesh_path(out, arguments.texture)
    check_writable(out.parent)
    distance = arguments.distance
    if distance is not None:
        check_distance(distance, "--distance")
    source = Path(arguments.images[0]).expanduser()
    images = read_views(source)
    if distance is None:
        distance = read_distance(source if source.is_dir() else source.parent)
    started = time.monotonic()
    _progress("loading the model")
    model = open_checkpoint(arguments)
    views = stack_views(images, model.image_size)
    _progress("computing the triplanes and the mesh")
    shape = model.reconstruct(views, *camera_tensors(input_cameras(distance))).shape
    colours = f"a texture of {arguments.texture} pixels" if arguments.texture else "vertex colours"
    _progress(f"writing {out}: {len(shape.faces)} triangles with {colours}")
    with writing(out):
        written = write_mesh(shape, out, texture=arguments.texture, azimuth=arguments.azimuth)
    result = {"out": str(out), **dataclasses.asdict(written), "distance": distance}
    if arguments.json:
        print(json.dumps(result | {"seconds": round(time.monotonic() - started, 2)}))
        return 0
    print(_summary(result))
    return 0


def _from_pictures(arguments: argparse.Namespace) -> int:
    from train.inference.mesh_files import check_mesh_path

    pictures = [Path(image).expanduser() for image in arguments.images]
    out = Path(arguments.out)
    if len(pictures) > 1 or arguments.format is not None:
        return _to_folder(arguments, pictures, out)
    check_mesh_path(out, arguments.texture)
    check_writable(out.parent)
    if not pictures[0].exists():
        raise BadInput(f"{pictures[0]}: no such picture file")
    started = time.monotonic()
    reconstructor = _reconstructor(arguments)
    from core.confined.confined_process import ConfinedProcess

    with ConfinedProcess("decoding") as decoder:
        result = reconstructor.write(pictures[0], out, decoder)
    if arguments.json:
        print(json.dumps(result | {"seconds": round(time.monotonic() - started, 2)}))
    else:
        print(_summary(result))
        print(_camera_text(result))
    return 0


def _to_folder(arguments: argparse.Namespace, pictures: list[Path], out: Path) -> int:
    """Write a mesh of each picture to a folder. Raises WorkFailed if some fail."""
    from pipelines.reconstruction.reconstruct_pictures import mesh_paths
    from train.inference.mesh_files import check_mesh_path

    outs = mesh_paths(pictures, out, arguments.format or "glb")
    for path in outs.values():
        check_mesh_path(path, arguments.texture)
    if out.suffix in (".glb", ".obj", ".ply") and not out.is_dir():
        raise BadInput(f"--out {out}: give a folder for the meshes of several pictures")
    check_writable(out)
    started = time.monotonic()
    reconstructor = _reconstructor(arguments)
    written, failed = reconstructor.write_all(outs)
    if arguments.json:
        seconds = round(time.monotonic() - started, 2)
        print(json.dumps({"meshes": written, "failed": failed, "seconds": seconds}))
    else:
        for result in written:
            print(_summary(result))
        if written:
            print(_camera_text(written[0]))
    if failed:
        for name, why in failed.items():
            _progress(f"{name}: {why}")
        name, why = next(iter(failed.items()))
        raise WorkFailed(f"{counted(len(failed), 'picture')} failed; the first: {name}: {why}")
    return 0


def _reconstructor(arguments: argparse.Namespace) -> "PictureReconstructor":
    """Return the model with the camera of the options. Raises BadInput."""
    from pipelines.reconstruction.reconstruct_pictures import PictureReconstructor

    given = {name: getattr(arguments, name) for name in ("distance", "elevation", "fov")}
    camera = PictureCamera(**{name: value for name, value in given.items() if value is not None})
    camera.check()
    _progress("loading the model")
    return PictureReconstructor(
        model=open_checkpoint(arguments),
        camera=camera,
        azimuth=arguments.azimuth,
        keep_framing=bool(arguments.keep_framing),
        texture=arguments.texture,
    )


def _summary(result: dict[str, Any]) -> str:
    closed = "watertight" if result["watertight"] else "not watertight"
    parts = "one part" if result["bodies"] == 1 else f"{result['bodies']} parts"
    counts = f"{result['vertices']} vertices, {result['faces']} triangles"
    return f"{result['out']}: {counts}, {closed}, {parts}"


def _camera_text(result: dict[str, Any]) -> str:
    camera = result["camera"]
    return (
        f"camera: azimuth {camera['azimuth']:g}, elevation {camera['elevation']:g}, field of view "
        f"{camera['fov']:g} degrees, {camera['distance']:g} world units from the object; scale: "
        f"{result['scale']:.4f} of the model's units per world unit"
    )


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


COMMAND = Command(
    example="lrm reconstruct VIEWS --mesh RUN --out chair.glb",
    options=_options,
    run=_run,
)
