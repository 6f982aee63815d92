"""Compare this project's loader with PNG files and with plain webdataset.

`python -m benchmarks loader --root DATASET --snapshot ID` exports the dataset as `lrm export
--layout instantmesh` does, and reads the same views of the same objects from each, alternately and
in one thread. It prints samples per second of one core, and KiB read per sample. Without a root it
first renders the demo's objects, which takes minutes; `--work` keeps them for the next run.

- Time is CPU time of the process, with the files in the page cache, so it is the cost of decoding.
- Bytes are those that the process read from the system (`rchar` in /proc/self/io).
- `pictures` are float tensors of whole views on white, not resized. `items` are the inputs of a
  training step, resized and cropped.
- The PNG loaders convert to floats when they decode, then composite, resize and crop each plane,
  which is the fastest way that was found. The baseline is the faster of Pillow and OpenCV. `PNG,
  rest as this project` reads PNG files, but shares all other code with this project's loader.
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
from benchmarks.help_text import benchmark_parser
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

OURS, WEBDATASET = "this project", "webdataset, whole samples"
PILLOW, OPENCV, REST = "PNG, Pillow", "PNG, OpenCV", "PNG, rest as this project"
BASELINES = (PILLOW, OPENCV)
TARGET_SPEED, TARGET_BYTES = 2.0, 0.4
_LAYOUT = "instantmesh"
_DEPTH_PER_LEVEL = 6 / 255
_SEED = 0


@dataclass(frozen=True)
class Reading:
    """The measurement of reading one sample once."""

    seconds: float
    num_bytes: int
    sample_bytes: int
    """Size of the whole stored sample."""


@dataclass(frozen=True)
class Summary:
    """The readings of one loader: median speed, mean bytes, and share of the samples' bytes."""

    per_second: float
    num_bytes: float
    share: float


class _Floats(Colours):
    """Colours that are converted to floats when they are decoded."""

    @classmethod
    def of(cls, pictures: Sequence[np.ndarray], *, published: bool = False) -> Self:  # noqa: ARG003
        return cls(torch.cat(composite(pictures), dim=1).permute(0, 2, 3, 1))

    def resized(self, side: int, some: slice = slice(None)) -> Self:
        planes = self.pixels[some].permute(0, 3, 1, 2)
        if self.size != (side, side):
            planes = F.interpolate(planes, (side, side), mode="bilinear", antialias=True)
        return type(self)(planes.permute(0, 2, 3, 1))


class _PngFolder(ObjectDataset[Any]):
    """A dataset that reads the views from an exported folder."""

    folder: Path
    by_pillow = False
    colours: type[Colours] = _Floats

    @functools.cached_property
    def _headers(self) -> dict[str, bytes]:
        return {}

    def _read(self, sample: Sample, chosen: Sequence[int]) -> dict[str, bytes]:
        headers = self._headers
        # The folder has no intrinsics: read them once, in the round that is not timed.
        if sample.asset_id not in headers:
            headers[sample.asset_id] = super()._read(sample, chosen)[META_MEMBER]
        folder = self.folder / sample_key(sample.asset_id)
        suffixes = {"rgba": "", "depth": "_depth", "normal": "_normal"}
        names = [f"{v:03d}{suffixes[kind]}.png" for kind in self.kinds for v in chosen]
        files = {name: (folder / name).read_bytes() for name in [*names, "cameras.npz"]}
        np.load(io.BytesIO(files["cameras.npz"]))["cam_poses"]
        return {META_MEMBER: headers[sample.asset_id], **files}

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
        def pixels(suffix: str) -> Tensor:
            files = [members[f"{view:03d}_{suffix}.png"] for view in chosen]
            return torch.from_numpy(np.stack([self._decode(file) for file in files]))

        maps = {}
        if "depth" in self.kinds:
            scale = _DEPTH_PER_LEVEL * augmentation.scale
            maps["depth"] = pixels("depth").float()[:, None] * scale
        if "normal" in self.kinds:
            colours = pixels("normal").movedim(-1, 1)
            normals = (colours[:, :3].float() / 127.5 - 1) * (colours[:, 3:] > 0)
            maps["normals"] = augmentation.turn(normals)
        return maps


class _WholeSamples(ObjectDataset[Any]):
    """A dataset that reads whole samples in the order of the shards."""

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
        # Names that start with "__" are webdataset's own entries.
        return {name: data for name, data in next(self._stream).items() if name[:2] != "__"}


class _PicturesOnly(ObjectDataset[Any]):
    """A dataset that returns the decoded views only, neither resized nor cropped."""

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
    """Export the dataset, measure all loaders, and print tables."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add("--root", help="folder of a dataset [default: render the demo's objects]")
    add("--snapshot", metavar="ID", help="snapshot in that dataset")
    add("--samples", type=int, default=8, help="number of positions that are read")
    add("--rounds", type=int, default=3, help="number of times that each is read")
    add("--input-size", type=int, default=320, help="width of an input view in pixels")
    add("--size", type=int, default=512, help="largest width of a target view in pixels")
    add("--work", metavar="DIR", help="folder that keeps the demo dataset and the export")
    add_figures(parser)
    args = parser.parse_args(argv)
    if (args.root is None) != (args.snapshot is None):
        parser.error("--root and --snapshot must be given together")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with contextlib.ExitStack() as stack:
        work = Path(args.work or stack.enter_context(tempfile.TemporaryDirectory()))
        root, snapshot = args.root, args.snapshot
        if root is None:
            root, snapshot = make_dataset(work, args.size)
        _compare(Storage(root), snapshot, work / "png", args)


def make_dataset(work: Path, size: int) -> tuple[str, str]:
    """Render the demo's objects with this resolution; return the root and a snapshot's id."""
    source, root = work / "source", work / "dataset"
    write_demo_source(source)
    lrm = [sys.executable, "-m", "pipelines.cli"]
    build = ["build", "--source", str(source), "--root", str(root), "--address", "none"]
    for name in ("caption", "lowpoly", "textured", "multi-object", "occupancy"):
        build += [f"--filters.{name}.enabled", "false"]
    settings = ["--render.resolution", str(size), "--render.samples", "4"]
    subprocess.run([*lrm, *build, *settings], check=True, stdout=sys.stderr)
    snapshot = [*lrm, "snapshot", "--root", str(root), "--json"]
    output = subprocess.run(snapshot, check=True, stdout=subprocess.PIPE).stdout
    return str(root), json.loads(output)["snapshot"]


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
            loaders = {
                name: dataset_class(root, samples, config, input_size=args.input_size, seed=_SEED)
                for name, dataset_class in classes.items()
            }
            readings = measure(loaders, sizes, args.rounds)
            print(f"\n{stage}: {level}\n")
            summaries = {name: summarise(of_loader) for name, of_loader in readings.items()}
            print(report(summaries))
            figures += _figures(f"{stage.partition(',')[0]}, {level}", summaries)
    write_figures(args.figures, figures)


def measure(
    loaders: Mapping[str, Any], sample_bytes: Sequence[int], rounds: int
) -> dict[str, list[Reading]]:
    """Read each position with all loaders in turn, so that other load affects all of them alike.

    There is one position for each item of `sample_bytes`.
    """
    readings: dict[str, list[Reading]] = {name: [] for name in loaders}
    for round_number in range(rounds + 1):
        for position, size in enumerate(sample_bytes):
            for name, loader in loaders.items():
                bytes_before, started = _bytes_read(), time.process_time()
                loader[position]
                seconds = time.process_time() - started
                if round_number:  # the first round fills the page cache and imports modules
                    readings[name].append(Reading(seconds, _bytes_read() - bytes_before, size))
    return readings


def summarise(readings: Sequence[Reading]) -> Summary:
    """Return samples per second of one core, bytes per sample, and their share of the sample."""
    num_bytes = statistics.mean(reading.num_bytes for reading in readings)
    return Summary(
        per_second=1 / statistics.median(reading.seconds for reading in readings),
        num_bytes=num_bytes,
        share=num_bytes / statistics.mean(reading.sample_bytes for reading in readings),
    )


def report(summaries: Mapping[str, Summary]) -> str:
    """Return a table, and the comparison of this project's loader with the targets."""
    lines = ["| loader | samples/s per core | KiB read | share of sample |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {one.per_second:.2f} | {one.num_bytes / 1024:.0f} | {one.share:.2f} |"
        for name, one in summaries.items()
    ]
    ours = summaries[OURS]
    fastest = max(summaries[name].per_second for name in BASELINES)
    lines.append("")
    lines += [
        f"{ours.per_second / summary.per_second:.2f} times the speed of {name}"
        for name, summary in summaries.items()
        if name != OURS
    ]
    times = ours.per_second / fastest
    lines.append(f"{times:.2f} times the faster PNG loader (target: at least {TARGET_SPEED:g})")
    lines.append(f"{ours.share:.2f} of the sample's bytes read (target: at most {TARGET_BYTES:g})")
    return "\n".join(lines)


def _figures(subject: str, summaries: Mapping[str, Summary]) -> list[Figure]:
    ours = summaries[OURS].per_second
    times = ours / max(summaries[name].per_second for name in BASELINES)
    return [
        Figure(f"{subject}: this project, per core", ours, "samples/s"),
        Figure(f"{subject}: this project relative to the faster PNG loader", times, "times"),
    ]


def _patches(size: int) -> ViewDataConfig:
    defaults = ViewDataConfig()
    patch_size = min(defaults.patch_size, size)
    return ViewDataConfig(patch_size=patch_size, target_size_min=patch_size, target_size_max=size)


def _classes(
    root: Storage, samples: Sequence[Sample], folder: Path, kind: type, level: str
) -> dict[str, type]:
    """Return one dataset class per loader by name; they differ only in reading and decoding."""
    files = {"folder": folder / get_layout(_LAYOUT).folder}
    shards = [root.resolve(shard) for shard in sorted({sample.shard for sample in samples})]
    variants: dict[str, tuple[tuple[type, ...], dict[str, Any]]] = {
        OURS: ((), {}),
        PILLOW: ((_PngFolder,), {**files, "by_pillow": True}),
        OPENCV: ((_PngFolder,), files),
        REST: ((_PngFolder,), {**files, "colours": Colours}),
        WEBDATASET: ((_WholeSamples,), {"shards": shards}),
    }
    first_bases = (_PicturesOnly,) if level == "pictures" else ()
    return {
        name: type(f"{level}-{name}", (*first_bases, *bases, kind), attributes)
        for name, (bases, attributes) in variants.items()
    }


def _bytes_read() -> int:
    """Return the bytes that this process has read so far, Linux's `rchar`."""
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])
