"""Samples per second and bytes per sample: our loader, a folder of PNGs, plain webdataset.

`python -m benchmarks loader --root DATASET --snapshot ID` writes the dataset as `lrm export
--layout instantmesh` does, and reads the same views of the same objects in turn from each, in one
thread. Without a root it first renders the demo's objects (minutes; `--work` keeps them).

- Time is that of the process on its core, with the files in the page cache: what decoding costs.
- Bytes are what the process asked the system for (`rchar`), not what a loader says of itself.
- `pictures` ends at float tensors of whole views, on white; nothing is resized. `items` goes on to
  what a step takes.
- The loaders of PNGs become floats where they are decoded, are composited plane by plane, resized
  and cropped: the fastest way that was found for floats. The baseline is the faster of their two
  decoders. `png, rest as ours` has PNGs for shards and all else in common with our loader.
"""

import argparse
import contextlib
import functools
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.figures import Figure, add_figures, write_figures
from core.config import Config
from core.storage import Storage
from dataset.object_record import sample_key
from dataset.snapshots.snapshot import Sample, open_snapshot
from dataset.views import META_MEMBER
from pipelines.demo.demo_mirror import write_demo_source
from pipelines.export.export_snapshot import export
from render.layouts import get_layout
from train.data.augment import Augmentation, draw_augmentation
from train.data.colours import Colours, composite
from train.data.order import sample_at, sample_rng
from train.data.patches import ViewDataConfig, ViewDataset
from train.data.sample_dataset import Item
from train.data.step_views import ObjectDataset, count_views
from train.data.whole_frames import FrameDataConfig, FrameDataset

OURS, WEBDATASET = "ours", "webdataset, whole samples"
PILLOW, OPENCV, REST = "png, Pillow", "png, OpenCV", "png, rest as ours"
BASELINES = (PILLOW, OPENCV)
TARGET_SPEED, TARGET_BYTES = 2.0, 0.4
_LAYOUT = "instantmesh"
_DEPTH_PER_LEVEL = 6 / 255
_SEED = 0


@dataclass(frozen=True)
class Reading:
    """One sample, read once."""

    seconds: float
    num_bytes: int
    sample_bytes: int
    """Of the whole sample as it is stored."""


@dataclass(frozen=True)
class Summary:
    """Medians over the readings of one loader; the share is of all bytes together."""

    per_second: float
    num_bytes: float
    share: float


class _Floats(Colours):
    """Colours that are floats from the start."""

    @classmethod
    def of(cls, pictures: Sequence[np.ndarray], *, published: bool = False) -> Self:  # noqa: ARG003
        return cls(torch.cat(composite(pictures), dim=1).permute(0, 2, 3, 1))

    def resized(self, side: int, some: slice = slice(None)) -> Self:
        planes = self.pixels[some].permute(0, 3, 1, 2)
        if self.size != (side, side):
            planes = F.interpolate(planes, (side, side), mode="bilinear", antialias=True)
        return type(self)(planes.permute(0, 2, 3, 1))


class _PngFolder(ObjectDataset[Any]):
    """The views out of an exported folder."""

    folder: Path
    by_pillow = False
    colours: type[Colours] = _Floats

    @functools.cached_property
    def _headers(self) -> dict[str, bytes]:
        return {}

    def _read(self, sample: Sample, chosen: Sequence[int]) -> dict[str, bytes]:
        known = self._headers
        if sample.asset_id not in known:  # the folder has no lens: taken once, before any timing
            known[sample.asset_id] = super()._read(sample, chosen)[META_MEMBER]
        place = self.folder / sample_key(sample.asset_id)
        endings = {"rgba": "", "depth": "_depth", "normal": "_normal"}
        names = [f"{v:03d}{endings[kind]}.png" for kind in self.kinds for v in chosen]
        found = {name: (place / name).read_bytes() for name in [*names, "cameras.npz"]}
        np.load(io.BytesIO(found["cameras.npz"]))["cam_poses"]
        return {META_MEMBER: known[sample.asset_id], **found}

    def _decode(self, data: bytes) -> np.ndarray:
        if self.by_pillow:
            return np.asarray(Image.open(io.BytesIO(data)))
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA) if pixels.ndim == 3 else pixels

    def _colours(self, members: Mapping[str, bytes], chosen: Sequence[int]) -> Colours:
        return self.colours.of([self._decode(members[f"{view:03d}.png"]) for view in chosen])

    def _maps(
        self,
        members: Mapping[str, bytes],
        header: Mapping[str, Any],
        chosen: Sequence[int],
        augmentation: Augmentation,
    ) -> dict[str, Tensor]:
        def pixels(ending: str) -> Tensor:
            files = [members[f"{view:03d}_{ending}.png"] for view in chosen]
            return torch.from_numpy(np.stack([self._decode(file) for file in files]))

        found = {}
        if "depth" in self.kinds:
            scale = _DEPTH_PER_LEVEL * augmentation.scale
            found["depth"] = pixels("depth").float()[:, None] * scale
        if "normal" in self.kinds:
            colours = pixels("normal").movedim(-1, 1)
            normals = (colours[:, :3].float() / 127.5 - 1) * (colours[:, 3:] > 0)
            found["normals"] = augmentation.turn(normals)
        return found


class _WholeSamples(ObjectDataset[Any]):
    """The views out of whole samples, in the order of the shards."""

    shards: Sequence[str]

    @functools.cached_property
    def _stream(self) -> Iterator[dict[str, bytes]]:
        import webdataset

        def endless() -> Iterator[dict[str, bytes]]:
            while True:
                yield from webdataset.WebDataset(
                    list(self.shards), shardshuffle=False, empty_check=False
                )

        return endless()

    def _read(self, sample: Sample, chosen: Sequence[int]) -> dict[str, bytes]:
        # Beside the members, strings that say where the sample came from.
        return {name: data for name, data in next(self._stream).items() if name[:2] != "__"}


class _PicturesOnly(ObjectDataset[Any]):
    """Of each item only the pictures of its views, as they come out of their files."""

    def _load(self, sample: Sample, position: int) -> Item:
        config, rng = self._config, sample_rng(self._seed, position)
        count = config.num_inputs + config.num_targets
        chosen = rng.choice(count_views(sample), count, replace=False).tolist()
        augmentation = draw_augmentation(config.augment, rng, config.num_inputs)
        members = self._read(sample, chosen)
        rgb, alpha = self._colours(members, chosen).floats()
        maps = self._maps(members, json.loads(members[META_MEMBER]), chosen, augmentation)
        return {"rgb": rgb, "alpha": alpha, **maps}


def main(argv: Sequence[str] | None = None) -> None:
    """Export, measure in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", help="a dataset in a local folder; by default one is made")
    parser.add_argument("--snapshot", help="one of the root's")
    parser.add_argument("--samples", type=int, default=8, help="positions that are read")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is read")
    parser.add_argument("--input-size", type=int, default=320)
    parser.add_argument("--size", type=int, default=512, help="largest side of a target")
    parser.add_argument("--work", help="folder that keeps what is made, for another time")
    add_figures(parser)
    args = parser.parse_args(argv)
    if (args.root is None) != (args.snapshot is None):
        parser.error("--root and --snapshot go together")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with contextlib.ExitStack() as stack:
        work = Path(args.work or stack.enter_context(tempfile.TemporaryDirectory()))
        found = (args.root, args.snapshot) if args.root else make_dataset(work, args.size)
        _compare(Storage(found[0]), found[1], work / "png", args)


def make_dataset(work: Path, size: int) -> tuple[str, str]:
    """Root and snapshot of the demo's objects, rendered with this resolution."""
    source, root = work / "source", work / "dataset"
    write_demo_source(source)
    lrm = [sys.executable, "-m", "pipelines.cli"]
    build = ["build", "--source", str(source), "--root", str(root), "--address", "none"]
    for name in ("caption", "lowpoly", "textured", "multi-object", "occupancy"):
        build += [f"--filters.{name}.enabled", "false"]
    settings = ["--render.resolution", str(size), "--render.samples", "4"]
    subprocess.run([*lrm, *build, *settings], check=True, stdout=sys.stderr)
    freeze = [*lrm, "snapshot", "--root", str(root), "--json"]
    said = subprocess.run(freeze, check=True, stdout=subprocess.PIPE).stdout
    return str(root), json.loads(said)["snapshot"]


def _compare(root: Storage, snapshot: str, folder: Path, args: argparse.Namespace) -> None:
    samples = open_snapshot(root, snapshot).samples
    stages: dict[str, tuple[type[ObjectDataset[Any]], Config]] = {
        "stage 1, RGBA": (ViewDataset, _patches(args.size)),
        "stage 2, RGBA, depth, normals": (FrameDataset, FrameDataConfig(frame_size=args.size)),
    }
    with contextlib.redirect_stdout(sys.stderr):
        export(root, snapshot, _LAYOUT, "all", str(folder), 1)
    figures: list[Figure] = []
    order = [sample_at(position, len(samples), _SEED) for position in range(args.samples)]
    sizes = [samples[index].entry.num_bytes for index in order]
    for stage, (kind, config) in stages.items():
        for level in ("pictures", "items"):
            classes = _classes(root, samples, folder, kind, level)
            made = {
                name: each(root, samples, config, input_size=args.input_size, seed=_SEED)
                for name, each in classes.items()
            }
            readings = measure(made, sizes, args.rounds)
            print(f"\n{stage}: {level}\n")
            found = {name: summarise(each) for name, each in readings.items()}
            print(report(found))
            figures += _figures(f"{stage.partition(',')[0]}, {level}", found)
    write_figures(args.figures, figures)


def measure(
    loaders: Mapping[str, Any], sample_bytes: Sequence[int], rounds: int
) -> dict[str, list[Reading]]:
    """Every position (as many as samples) by every loader in turn, whatever the machine does."""
    found: dict[str, list[Reading]] = {name: [] for name in loaders}
    for turn in range(rounds + 1):
        for position, size in enumerate(sample_bytes):
            for name, loader in loaders.items():
                read, started = _bytes_read(), time.process_time()
                loader[position]
                seconds = time.process_time() - started
                if turn:  # the first fills the page cache and imports what is missing
                    found[name].append(Reading(seconds, _bytes_read() - read, size))
    return found


def summarise(readings: Sequence[Reading]) -> Summary:
    """Samples per second of a core, bytes per sample, and their share of the whole sample."""
    num_bytes = statistics.mean(reading.num_bytes for reading in readings)
    return Summary(
        per_second=1 / statistics.median(reading.seconds for reading in readings),
        num_bytes=num_bytes,
        share=num_bytes / statistics.mean(reading.sample_bytes for reading in readings),
    )


def report(found: Mapping[str, Summary]) -> str:
    """A table, and how our loader stands to the targets."""
    lines = ["| loader | samples/s of a core | KiB read | of the sample |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {one.per_second:.2f} | {one.num_bytes / 1024:.0f} | {one.share:.2f} |"
        for name, one in found.items()
    ]
    ours = found[OURS]
    fastest = max(found[name].per_second for name in BASELINES)
    lines.append("")
    lines += [
        f"{ours.per_second / one.per_second:.2f} times {name}"
        for name, one in found.items()
        if name != OURS
    ]
    times = ours.per_second / fastest
    lines.append(f"{times:.2f} times the faster of png (target: at least {TARGET_SPEED:g})")
    lines.append(f"{ours.share:.2f} of the sample's bytes read (target: at most {TARGET_BYTES:g})")
    return "\n".join(lines)


def _figures(what: str, found: Mapping[str, Summary]) -> list[Figure]:
    ours = found[OURS].per_second
    times = ours / max(found[name].per_second for name in BASELINES)
    return [
        Figure(f"{what}: this project, per core", ours, "samples/s"),
        Figure(f"{what}: this project relative to the faster PNG loader", times, "times"),
    ]


def _patches(size: int) -> ViewDataConfig:
    published = ViewDataConfig()
    least = min(published.patch_size, size)
    return ViewDataConfig(patch_size=least, target_size_min=least, target_size_max=size)


def _classes(
    root: Storage, samples: Sequence[Sample], folder: Path, kind: type, level: str
) -> dict[str, type]:
    """The classes of datasets that differ in their reading, by the loader's name."""
    files = {"folder": folder / get_layout(_LAYOUT).folder}
    shards = [root.resolve(shard) for shard in sorted({sample.shard for sample in samples})]
    readings: dict[str, tuple[tuple[type, ...], dict[str, Any]]] = {
        OURS: ((), {}),
        PILLOW: ((_PngFolder,), {**files, "by_pillow": True}),
        OPENCV: ((_PngFolder,), files),
        REST: ((_PngFolder,), {**files, "colours": Colours}),
        WEBDATASET: ((_WholeSamples,), {"shards": shards}),
    }
    ends = (_PicturesOnly,) if level == "pictures" else ()
    return {
        name: type(f"{level}-{name}", (*ends, *bases, kind), attributes)
        for name, (bases, attributes) in readings.items()
    }


def _bytes_read() -> int:
    """Bytes that this process has asked the system for, Linux's `rchar`."""
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])
