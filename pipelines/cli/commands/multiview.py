"""`lrm multiview`: six views of an object from one picture of it, by Zero123++."""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import BadInput
from core.options import Parser, add_json_option
from core.options.bounds import at_most
from core.outputs import check_writable, writing
from pipelines.cli.command import Command
from pipelines.cli.torch_options import add_device_option, open_device
from train.models.zero123plus.quiet_libraries import quiet_diffusers
from train.models.zero123plus.sampling_defaults import GUIDANCE_SCALE, NUM_STEPS, VIEW_SIZE

if TYPE_CHECKING:
    import torch

    from train.models.zero123plus.pipeline import Zero123PlusPipeline


__all__ = ["COMMAND", "check_sampling", "load_pipeline"]

_SHEET = "sheet.png"
_QUERY = "query.png"


def _options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "image",
        metavar="IMAGE",
        help="Picture of one object; its alpha channel, if any, is the mask.",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="Folder to write the views to.")
    parser.add_argument(
        "--pipeline",
        required=True,
        metavar="FOLDER",
        help="Zero123++ in the layout of diffusers: a folder, such as lrm weights writes, or the "
        "name of a repository that is in the local cache of the hub.",
    )
    parser.add_argument(
        "--seed", type=at_most(int, 2**64), default=0, metavar="N", help="Seed of the noise."
    )
    parser.add_argument(
        "--steps",
        type=at_most(int, 1000),
        default=NUM_STEPS,
        metavar="N",
        help="Denoising steps.",
    )
    parser.add_argument(
        "--guidance",
        type=at_most(float, 1e6),
        default=GUIDANCE_SCALE,
        metavar="G",
        help="Guidance scale; 1 or less switches guidance off.",
    )
    parser.add_argument(
        "--view-size",
        type=at_most(int, 4096),
        default=VIEW_SIZE,
        metavar="PIXELS",
        help="Side of a view, in pixels.",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "fp16", "bf16"),
        default="auto",
        help="Precision of the networks; auto is fp16 on CUDA and fp32 on a CPU.",
    )
    parser.add_argument(
        "--keep-background",
        action="store_true",
        help="Use the picture unchanged: do not mask or centre the object.",
    )
    add_device_option(parser)
    add_json_option(parser)


def _run(arguments: argparse.Namespace) -> int:
    """Generate the views and write them."""
    from train.inference.input_pictures import check_not_empty, on_white, read_picture
    from train.inference.query import has_mask, prepare_query
    from train.inference.six_views import VIEW_NAME
    from train.inference.views_file import read_distance, write_distance
    from train.models.zero123plus.pipeline_files import local_folder

    out = Path(arguments.out)
    check_writable(out)
    check_sampling(arguments)
    _check_pipeline(arguments.pipeline)
    image = read_picture(Path(arguments.image).expanduser())
    if not has_mask(image):
        # With a mask, a white picture is not empty: the object may be white.
        check_not_empty(on_white(image), arguments.image)
    query = prepare_query(image, keep_background=arguments.keep_background)
    if query.background == "kept" and not arguments.keep_background:
        print(
            f"{arguments.image}: used unchanged, because it has no alpha channel and no plain "
            "background; install rembg to mask such pictures",
            file=sys.stderr,
        )
    distance = read_distance(local_folder(arguments.pipeline))
    device = open_device(arguments.device)
    pipeline = load_pipeline(arguments.pipeline, device, arguments.precision)
    pipeline.set_progress_bar_config(disable=arguments.json, desc="denoising")
    output = pipeline(
        [query.image],
        [arguments.seed],
        num_inference_steps=arguments.steps,
        guidance_scale=arguments.guidance,
        view_size=arguments.view_size,
    )
    sheet = output.images[0]
    pictures = {_QUERY: query.image, _SHEET: sheet}
    size = arguments.view_size
    for number in range(6):
        left, top = size * (number % 2), size * (number // 2)
        pictures[VIEW_NAME.format(number)] = sheet.crop((left, top, left + size, top + size))
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            picture.save(out / name)
        write_distance(out, distance)
    if arguments.json:
        files = {"views": [str(out / VIEW_NAME.format(i)) for i in range(6)]}
        report = {"sheet": str(out / _SHEET), "background": query.background, **files}
        print(json.dumps(report | {"seed": arguments.seed, "distance": distance}))
    else:
        print(f"{out}: six views and {_SHEET} (background: {query.background})")
    return 0


def check_sampling(arguments: argparse.Namespace) -> None:
    """Raise BadInput for a seed or a guidance scale out of range."""
    if not -(2**63) <= arguments.seed < 2**63:
        raise BadInput(f"--seed {arguments.seed}: give a whole number of 64 bits")
    if not math.isfinite(arguments.guidance):
        raise BadInput(f"--guidance {arguments.guidance}: give a finite number")


def _check_pipeline(source: str) -> None:
    """Raise BadInput if there is no pipeline; the hub's own message speaks of its arguments."""
    from train.models.zero123plus.pipeline_files import INDEX, local_folder

    folder = local_folder(source)
    if not folder.exists():
        raise BadInput(
            f"--pipeline {source}: no such folder, and no such repository in the local cache of "
            "the hub; give a folder, or download the repository with `hf download`"
        )
    if not (folder / INDEX).exists():
        raise BadInput(f"--pipeline {source}: the folder has no {INDEX}, as pipelines have")


def load_pipeline(source: str, device: "torch.device", precision: str) -> "Zero123PlusPipeline":
    """Return Zero123++ of a folder or the cache of the hub, on a device. Raises BadInput."""
    _check_pipeline(source)
    import torch

    quiet_diffusers()
    from train.models.zero123plus.pipeline import load_zero123plus

    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    types = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    return load_zero123plus(source, dtype=types[precision]).to(device)


COMMAND = Command(
    example="lrm multiview chair.png --pipeline zero123plus --out VIEWS",
    options=_options,
    run=_run,
)
