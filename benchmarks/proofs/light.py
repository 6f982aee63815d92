"""Measure the shares of white and black pixels in renders of real models.

`python -m benchmarks light --source DIR` renders views of every model below DIR. For each it prints
the percentage of the object's opaque pixels with a channel at 255, with all channels at 255, and
with all channels below 8, the percentage of the visible surface that is black although its base
colour is not, and the median brightness (0 to 255). `--sheets DIR` saves a contact
sheet of each model. docs/notes/rendering.md shows the figures of a run.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.help_text import benchmark_parser
from benchmarks.real_models import choose_models
from dataset.views import ViewSet
from render.check import check_render
from render.contact_sheet import contact_sheet
from render.process import BlenderProcess, RenderFailure
from render.render_config import BlenderLimits, RenderConfig
from render.rigs import get_rig

_DARK = 8
_WHITE = 255


@dataclass(frozen=True)
class Shares:
    """Shares, in [0, 1], of the opaque pixels of an object."""

    clipped: float
    """Share with a channel at 255."""
    white: float
    """Share with all channels at 255."""
    dark: float
    """Share with all channels below 8."""
    unexplained: float
    """Share of the visible surface that is black, although its base colour is not."""
    median: float
    """Median over the pixels of the channels' mean, 0 to 255; not a share."""


def main() -> None:
    """Render the models, measure them and print the result."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add("--source", type=Path, required=True, help="folder of models in Objaverse's layout")
    add(
        "--classes",
        default="",
        help="classes of labels.json, separated by commas [default: all]",
    )
    add("--views", type=int, default=8, help="number of views of each model, from rig lrm32")
    add("--resolution", type=int, default=192, help="width and height of a view in pixels")
    add("--sheets", type=Path, metavar="DIR", help="folder for a contact sheet of every model")
    args = parser.parse_args()
    models = choose_models(args.source, args.classes.split(",") if args.classes else None)
    if args.sheets:
        args.sheets.mkdir(parents=True, exist_ok=True)
    config = RenderConfig(resolution=args.resolution)
    measured, failed = {}, {}
    with BlenderProcess(BlenderLimits()) as blender:
        for path in models:
            try:
                views, unexplained = _render(blender, path, args.views, config)
            except RenderFailure as error:
                failed[path.stem] = f"{error.kind}: {error}"
                continue
            measured[path.stem] = measure(views, unexplained)
            if args.sheets:
                contact_sheet(views, title=path.stem).save(args.sheets / f"{path.stem}.png")
    _report(measured, failed)


def _render(
    blender: BlenderProcess, path: Path, count: int, config: RenderConfig
) -> tuple[ViewSet, float]:
    """Return views of a model, and the share of its surface that is black without a reason."""
    blender.open(path, "cube")
    cameras = get_rig("lrm32").cameras(f"objaverse:{path.stem}")[:count]
    views, report = blender.render(cameras, config)
    return views, check_render(views, report, config)


def measure(views: ViewSet, unexplained: float) -> Shares:
    """Return the shares over all views."""
    pixels = views.rgba[views.rgba[..., 3] == 255][:, :3]
    if not len(pixels):
        return Shares(0, 0, 0, unexplained, 0)
    return Shares(
        clipped=float((pixels == _WHITE).any(axis=-1).mean()),
        white=float((pixels == _WHITE).all(axis=-1).mean()),
        dark=float((pixels < _DARK).all(axis=-1).mean()),
        unexplained=unexplained,
        median=float(np.median(pixels.mean(axis=-1))),
    )


def _report(measured: dict[str, Shares], failed: dict[str, str]) -> None:
    print("| model | one channel at 255 | all at 255 | all below 8 | unexplained | median |")
    print("|---|---|---|---|---|---|")
    for name, shares in sorted(measured.items(), key=lambda item: -item[1].clipped - item[1].dark):
        columns = (shares.clipped, shares.white, shares.dark, shares.unexplained)
        print(f"| {name[:8]} | {' | '.join(f'{c:.2%}' for c in columns)} | {shares.median:.0f} |")
    print(f"\n{len(measured)} models rendered, {len(failed)} failed")
    for kind in ("clipped", "white", "dark", "unexplained"):
        print(f"{kind}: {_spread([getattr(shares, kind) for shares in measured.values()])}")
    for name, reason in failed.items():
        print(f"failed {name}: {reason}")


def _spread(values: Sequence[float]) -> str:
    over = sum(value > 0.01 for value in values)
    mean, median = statistics.mean(values), statistics.median(values)
    return f"mean {mean:.2%}, median {median:.2%}, more than 1 % in {over} models"
