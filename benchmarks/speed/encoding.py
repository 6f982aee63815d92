"""Compare encodings of a sample's images by size and time, on real models.

`python -m benchmarks encoding --source DIR` renders views of the models below DIR and prints the
table of docs/notes/encoding.md: mean size in KiB, size relative to plain PNG, and median CPU
milliseconds for encoding and decoding an image. QOI is measured if the package `qoi` is installed.
"""

import argparse
import importlib.util
import io
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.figures import Figure, add_figures, write_figures
from benchmarks.help_text import benchmark_parser
from dataset.format import encoding
from dataset.views import ViewSet, depth_scale_for
from render.process import BlenderProcess, RenderFailure
from render.render_config import BlenderLimits, RenderConfig
from render.rigs import get_rig

_STEP = depth_scale_for(get_rig("lrm32").cameras("any"))
_RANGE_6 = 6 / 65535
_PLAIN = "PNG"
_CHOSEN = "**chosen**"


@dataclass(frozen=True)
class Codec:
    """An encoding of one kind of image; `decode` returns the arrays that training uses."""

    kind: str  # a field of ViewSet
    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


@dataclass(frozen=True)
class Cost:
    """The cost of a codec over all images: mean size, and median CPU time of one thread."""

    num_bytes: float
    encode_ms: float
    decode_ms: float


def main() -> None:
    """Render the models, measure all encodings, and print a table."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add("--source", type=Path, required=True, help="folder with GLB files at any depth")
    add("--objects", type=int, default=10, help="number of models")
    add("--views", type=int, default=8, help="number of views of each model, from rig lrm32")
    add("--resolution", type=int, default=512, help="width and height of a view in pixels")
    add("--cache", type=Path, metavar="DIR", help="folder that keeps the rendered views")
    add_figures(parser)
    args = parser.parse_args()
    rendered = list(islice(_rendered(args), args.objects))
    if not rendered:
        sys.exit(f"{args.source}: no model could be rendered; standard error says why")
    print(f"{len(rendered)} models, {args.views} views of each\n")
    rows = _with_sums({codec: _measure(codec, rendered) for codec in _codecs()})
    _report(rows)
    plain, chosen = (
        next(cost for kind, name, cost in rows if (kind, name) == ("all three", codec))
        for codec in (_PLAIN, _CHOSEN)
    )
    share = chosen.num_bytes / plain.num_bytes
    figures = [
        Figure("size of a view's images, relative to plain PNG", share, "times"),
        Figure("encode the images of a view", chosen.encode_ms, "ms"),
        Figure("decode the images of a view", chosen.decode_ms, "ms"),
    ]
    write_figures(args.figures, figures)


def _rendered(args: argparse.Namespace) -> Iterator[ViewSet]:
    """Yield views of the models, sorted by name; models that fail are skipped."""
    with BlenderProcess(BlenderLimits()) as blender:
        for glb in sorted(args.source.rglob("*.glb"), key=lambda path: path.stem):
            cameras = get_rig("lrm32").cameras(f"objaverse:{glb.stem}")[: args.views]
            cached = args.cache and args.cache / f"{glb.stem}-{args.views}-{args.resolution}.npz"
            if cached and cached.exists():
                yield ViewSet(cameras=cameras, **np.load(cached))
                continue
            try:
                blender.open(glb, "cube")
                views, _ = blender.render(cameras, RenderConfig(resolution=args.resolution))
            except RenderFailure as error:
                print(f"{glb.name}: skipped, {error.kind}: {error}", file=sys.stderr)
                continue
            if cached:
                args.cache.mkdir(parents=True, exist_ok=True)
                np.savez(cached, rgba=views.rgba, depth=views.depth, normals=views.normals)
            yield views


def _codecs() -> Iterator[Codec]:
    yield Codec("rgba", _PLAIN, _png, _pixels)
    yield Codec("rgba", "PNG, level 1", partial(_png, level=1), _pixels)
    if importlib.util.find_spec("qoi"):
        qoi = importlib.import_module("qoi")
        yield Codec("rgba", "QOI", qoi.encode, qoi.decode)
    for method, quality in ((0, 20), (1, 20), (1, 30), (4, 50)):
        name = f"WebP, method {method}, quality {quality}"
        yield Codec("rgba", name, partial(_webp, method=method, quality=quality), _pixels)
    yield Codec("rgba", _CHOSEN, encoding.encode_rgba, encoding.decode_rgba)

    yield Codec("depth", _PLAIN, _depth_png, _from_depth_png)
    for name, scale in (("PNG, range 6", _RANGE_6), ("PNG, steps of 2^-12", _STEP)):
        yield Codec("depth", name, partial(_depth_png, scale=scale), _from_depth_png)
    yield Codec("depth", "WebP of two bytes", _two_bytes, _from_two_bytes)
    for name, scale in (("chosen, range 6", _RANGE_6), (_CHOSEN, _STEP)):
        encode = partial(encoding.encode_depth, depth_scale=scale)
        yield Codec("depth", name, encode, partial(encoding.decode_depth, depth_scale=scale))

    yield Codec("normals", _PLAIN, lambda normals: _png(_rgb(normals)), _from_rgb)
    yield Codec("normals", "WebP of RGB", lambda normals: _webp(_rgb(normals)), _from_rgb)
    yield Codec("normals", _CHOSEN, encoding.encode_normal, encoding.decode_normal)


def _measure(codec: Codec, rendered: list[ViewSet]) -> Cost:
    sizes, encode, decode = [], [], []
    for picture in np.concatenate([getattr(views, codec.kind) for views in rendered]):
        milliseconds, data = _timed(codec.encode, picture, repeats=1)
        encode.append(milliseconds)
        decode.append(_timed(codec.decode, data, repeats=3)[0])
        sizes.append(len(data))
    return Cost(statistics.mean(sizes), statistics.median(encode), statistics.median(decode))


def _timed(function: Callable[[Any], Any], argument: Any, repeats: int) -> tuple[float, Any]:
    """Return the shortest CPU time of several calls in milliseconds, and the result."""
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        result = function(argument)
        seconds.append(time.process_time() - started)
    return 1000 * min(seconds), result


def _with_sums(costs: dict[Codec, Cost]) -> list[tuple[str, str, Cost]]:
    """Return rows of kind, encoding and cost; the last rows are sums over the three kinds."""
    rows = [(codec.kind, codec.name, cost) for codec, cost in costs.items()]
    for name in (_PLAIN, _CHOSEN):
        parts = [astuple(cost) for _, codec, cost in rows if codec == name]
        rows.append(("all three", name, Cost(*map(sum, zip(*parts, strict=True)))))
    return rows


def _report(rows: list[tuple[str, str, Cost]]) -> None:
    plain = {kind: cost.num_bytes for kind, name, cost in rows if name == _PLAIN}
    print("| image | encoding | KiB | relative to plain PNG | encode, ms | decode, ms |")
    print("|---|---|---|---|---|---|")
    for kind, name, cost in rows:
        size = f"{cost.num_bytes / 1024:.1f} | {cost.num_bytes / plain[kind]:.2f}"
        print(f"| {kind} | {name} | {size} | {cost.encode_ms:.1f} | {cost.decode_ms:.1f} |")


def _png(pixels: np.ndarray, level: int = 6) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=level)
    return out.getvalue()


def _webp(pixels: np.ndarray, method: int = 2, quality: int = 30) -> bytes:
    out = io.BytesIO()
    settings = {"lossless": True, "exact": True, "method": method, "quality": quality}
    Image.fromarray(pixels).save(out, "WEBP", **settings)
    return out.getvalue()


def _pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def _depth_png(depth: np.ndarray, scale: float | None = None) -> bytes:
    return _png(_levels(depth, scale or max(float(depth.max()), 1e-6) / 65535))


def _from_depth_png(data: bytes) -> np.ndarray:
    return _pixels(data).astype(np.float32) * np.float32(_STEP)


def _two_bytes(depth: np.ndarray) -> bytes:
    levels = _levels(depth, _STEP)
    return _webp(np.dstack([levels >> 8, levels & 255, np.zeros_like(levels)]).astype(np.uint8))


def _from_two_bytes(data: bytes) -> np.ndarray:
    pixels = _pixels(data).astype(np.float32)
    return (pixels[..., 0] * 256 + pixels[..., 1]) * np.float32(_STEP)


def _levels(depth: np.ndarray, scale: float) -> np.ndarray:
    return np.rint(depth / scale).astype(np.uint16)


def _rgb(normals: np.ndarray) -> np.ndarray:
    hit = normals.any(axis=-1, keepdims=True)
    return np.where(hit, np.rint((normals + 1) * 127.5), 0).astype(np.uint8)


def _from_rgb(data: bytes) -> np.ndarray:
    """Decode normals as published loaders do, without masking and normalisation."""
    return _pixels(data).astype(np.float32) * np.float32(2 / 255) - 1
