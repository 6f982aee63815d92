"""Whether the light suits all models: how much of them comes out white or black.

`python -m benchmarks light --source DIR` renders some views of every model below DIR. For each it
prints the share of the object's pixels with a channel at 255, of those that are all white, and of
those that are all below 8. `--sheets DIR` keeps a contact sheet of each. docs/notes/rendering.md
holds a run's figures.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.real_models import choose_models
from dataset.views import ViewSet
from render.check import check_views
from render.contact_sheet import contact_sheet
from render.process import BlenderProcess, RenderFailure
from render.render_config import BlenderLimits, RenderConfig
from render.rigs import get_rig

_DARK = 8
_WHITE = 255


@dataclass(frozen=True)
class Shares:
    """Of the pixels that an object fills."""

    clipped: float
    """With a channel at 255."""
    white: float
    """With all channels at 255."""
    dark: float
    """With all channels below 8."""
    median: float
    """The median of the channels' mean, 0 to 255."""


def main() -> None:
    """Render, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--source", type=Path, required=True, help="folder in Objaverse's layout")
    parser.add_argument("--classes", default="", help="of labels.json [all]")
    parser.add_argument("--views", type=int, default=8, help="views of each, of rig lrm32")
    parser.add_argument("--resolution", type=int, default=192)
    parser.add_argument("--sheets", type=Path, help="folder for a contact sheet of every model")
    args = parser.parse_args()
    models = choose_models(args.source, args.classes.split(",") if args.classes else None)
    if args.sheets:
        args.sheets.mkdir(parents=True, exist_ok=True)
    config = RenderConfig(resolution=args.resolution)
    found, failed = {}, {}
    with BlenderProcess(BlenderLimits()) as blender:
        for path in models:
            try:
                views = _render(blender, path, args.views, config)
            except RenderFailure as error:
                failed[path.stem] = f"{error.kind}: {error}"
                continue
            found[path.stem] = measure(views)
            if args.sheets:
                contact_sheet(views, title=path.stem).save(args.sheets / f"{path.stem}.png")
    _report(found, failed)


def _render(blender: BlenderProcess, path: Path, count: int, config: RenderConfig) -> ViewSet:
    blender.open(path, "cube")
    cameras = get_rig("lrm32").cameras(f"objaverse:{path.stem}")[:count]
    views, _ = blender.render(cameras, config)
    check_views(views)
    return views


def measure(views: ViewSet) -> Shares:
    """The shares over all views."""
    pixels = views.rgba[views.rgba[..., 3] == 255][:, :3]
    if not len(pixels):
        return Shares(0, 0, 0, 0)
    return Shares(
        clipped=float((pixels == _WHITE).any(axis=-1).mean()),
        white=float((pixels == _WHITE).all(axis=-1).mean()),
        dark=float((pixels < _DARK).all(axis=-1).mean()),
        median=float(np.median(pixels.mean(axis=-1))),
    )


def _report(found: dict[str, Shares], failed: dict[str, str]) -> None:
    print("| model | a channel at 255 | white | below 8 | median |")
    print("|---|---|---|---|---|")
    for name, shares in sorted(found.items(), key=lambda item: -item[1].clipped - item[1].dark):
        columns = (shares.clipped, shares.white, shares.dark)
        print(f"| {name[:8]} | {' | '.join(f'{c:.2%}' for c in columns)} | {shares.median:.0f} |")
    print(f"\n{len(found)} models rendered, {len(failed)} failed")
    for part in ("clipped", "white", "dark"):
        print(f"{part}: {_spread([getattr(shares, part) for shares in found.values()])}")
    for name, why in failed.items():
        print(f"failed {name}: {why}")


def _spread(values: Sequence[float]) -> str:
    over = sum(value > 0.01 for value in values)
    mean, median = statistics.mean(values), statistics.median(values)
    return f"mean {mean:.2%}, median {median:.2%}, more than 1 % of {over} models"
