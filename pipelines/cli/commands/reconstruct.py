"""`lrm reconstruct`: a mesh of an object from six views of it."""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

from core.options import Parser, add_json_option
from core.options.bounds import at_most
from core.outputs import check_writable, writing
from pipelines.cli.checkpoint_options import add_checkpoint_options, open_checkpoint
from pipelines.cli.command import Command

__all__ = [
    "COMMAND",
]


def _options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "views",
        metavar="IMAGE_OR_DIR",
        help="Six views: a sheet of 3 rows and 2 columns, or a folder of six pictures, as "
        "lrm multiview writes them.",
    )
    add_checkpoint_options(parser)
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="Mesh to write: .glb, .obj or .ply."
    )
    parser.add_argument(
        "--texture",
        type=at_most(int, 16_384),
        metavar="SIZE",
        help="Bake a texture with a side of SIZE pixels, instead of vertex colours (.glb, .obj).",
    )
    parser.add_argument(
        "--distance",
        type=at_most(float, 1e6),
        metavar="D",
        help="Distance of the cameras of the views from the origin. [default: the one that "
        "lrm multiview wrote to their folder, otherwise 4, as in InstantMesh]",
    )
    parser.add_argument(
        "--azimuth",
        type=at_most(float, 3600),
        default=-90.0,
        metavar="DEGREES",
        help="Azimuth from which the input picture shows the object, in degrees; -90 is the front "
        "of a glTF model, 0 leaves the mesh in the frame of the model's cameras.",
    )
    add_json_option(parser)


def _run(arguments: argparse.Namespace) -> int:
    """Reconstruct the mesh and write it."""
    from train.inference.mesh_files import check_mesh_path, write_mesh
    from train.inference.six_views import (
        camera_tensors,
        input_cameras,
        read_views,
        stack_views,
    )
    from train.inference.views_file import check_distance, read_distance

    out = Path(arguments.out)
    check_mesh_path(out, arguments.texture)
    check_writable(out.parent)
    distance = arguments.distance
    if distance is not None:
        check_distance(distance, "--distance")
    source = Path(arguments.views).expanduser()
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
    closed = "watertight" if written.watertight else "not watertight"
    parts = "one part" if written.bodies == 1 else f"{written.bodies} parts"
    print(f"{out}: {written.vertices} vertices, {written.faces} triangles, {closed}, {parts}")
    return 0


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


COMMAND = Command(
    example="lrm reconstruct VIEWS --mesh RUN --out chair.glb",
    options=_options,
    run=_run,
)
