"""Samples per second and bytes per sample: our loader, a folder of PNGs, plain webdataset.

`python -m benchmarks.loader --root DATASET --snapshot ID` writes the dataset as `lrm export
--layout instantmesh` does, and reads the same views of the same objects in turn from each, in one
thread.

- Time is that of the process on its core, with the files in the page cache: what decoding costs.
- Bytes are what the process asked the system for (`rchar`), not what a loader says of itself.
- `pictures` ends at float tensors of whole views, on white; nothing is resized. `items` goes on to
  what a step takes. What follows decoding (compositing, resizing, cropping) is one code for all,
  but for `png, numpy`, which composites view by view in numpy, as loaders of PNGs usually do.
"""

import argparse
import contextlib
import functools
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dataset.config import Config
from dataset.objects import sample_key
from dataset.snapshot import Sample, open_snapshot
from dataset.storage import Storage
from dataset.views import META_MEMBER
from pipelines.export import export
from render.export import get_layout
from train.augment import Augmentation, draw_augmentation
from train.data import ViewDataConfig, ViewDataset
from train.frames import FrameDataConfig, FrameDataset
from train.order import sample_at
from train.views import Item, ObjectDataset, composite, count_views

OURS, PNG, NUMPY, WEBDATASET = "ours", "png", "png, numpy", "webdataset"
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


class _PngFolder(ObjectDataset[Any]):
    """The views out of an exported folder, by Pillow."""

    folder: Path
    plain = False

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

    def _pictures(
        self,
        members: Mapping[str, bytes],
        header: Mapping[str, Any],
        chosen: Sequence[int],
        augmentation: Augmentation,
    ) -> dict[str, Tensor]:
        def pixels(ending: str) -> list[np.ndarray]:
            files = [io.BytesIO(members[f"{view:03d}{ending}.png"]) for view in chosen]
            return [np.asarray(Image.open(file)) for file in files]

        rgb, alpha = (_composite_plainly if self.plain else composite)(pixels(""))
        pictures = {"rgb": rgb, "alpha": alpha}
        if "depth" in self.kinds:
            levels = torch.from_numpy(np.stack(pixels("_depth"))).float()[:, None]
            pictures["depth"] = levels * (_DEPTH_PER_LEVEL * augmentation.scale)
        if "normal" in self.kinds:
            colours = torch.from_numpy(np.stack(pixels("_normal"))).movedim(-1, 1)
            normals = (colours[:, :3].float() / 127.5 - 1) * (colours[:, 3:] > 0)
            pictures["normals"] = augmentation.turn(normals)
        return pictures


class _PlainPngFolder(_PngFolder):
    plain = True


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


def _composite_plainly(pictures: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    rgbs, alphas = [], []
    for pixels in pictures:
        values = np.asarray(pixels, dtype=np.float32) / 255
        alpha = values[..., 3:]
        rgb = values[..., :3] * alpha + (1 - alpha)
        rgbs.append(torch.from_numpy(rgb).permute(2, 0, 1).contiguous())
        alphas.append(torch.from_numpy(alpha).permute(2, 0, 1).contiguous())
    return torch.stack(rgbs), torch.stack(alphas)


class _PicturesOnly(ObjectDataset[Any]):
    """Of each item only the pictures of its views, as they come out of their files."""

    def _load(self, sample: Sample, rng: np.random.Generator) -> Item:
        config = self._config
        count = config.num_inputs + config.num_targets
        chosen = rng.choice(count_views(sample), count, replace=False).tolist()
        augmentation = draw_augmentation(config.augment, rng, config.num_inputs)
        members = self._read(sample, chosen)
        return self._pictures(members, json.loads(members[META_MEMBER]), chosen, augmentation)


def main(argv: Sequence[str] | None = None) -> None:
    """Export, measure in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", required=True, help="a dataset in a local folder")
    parser.add_argument("--snapshot", required=True)
    parser.add_argument("--samples", type=int, default=8, help="positions that are read")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is read")
    parser.add_argument("--input-size", type=int, default=320)
    parser.add_argument("--size", type=int, default=512, help="largest side of a target")
    parser.add_argument("--png", help="folder that keeps the PNGs for another time")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    root = Storage(args.root)
    samples = open_snapshot(root, args.snapshot).samples
    stages: dict[str, tuple[type[ObjectDataset[Any]], Config]] = {
        "stage 1, RGBA": (ViewDataset, _patches(args.size)),
        "stage 2, RGBA, depth, normals": (FrameDataset, FrameDataConfig(frame_size=args.size)),
    }
    with contextlib.ExitStack() as stack:
        folder = args.png or stack.enter_context(tempfile.TemporaryDirectory())
        with contextlib.redirect_stdout(sys.stderr):
            export(root, args.snapshot, _LAYOUT, "all", folder, 1)
        for stage, (kind, config) in stages.items():
            for level in ("pictures", "items"):
                classes = _classes(root, samples, Path(folder), kind, level)
                made = {
                    name: each(root, samples, config, input_size=args.input_size, seed=_SEED)
                    for name, each in classes.items()
                }
                sizes = [
                    samples[sample_at(position, len(samples), _SEED)].entry.num_bytes
                    for position in range(args.samples)
                ]
                readings = measure(made, sizes, args.rounds)
                print(f"\n{stage}: {level}\n")
                print(report({name: summarise(found) for name, found in readings.items()}))


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
    lines.append("")
    for name, one in found.items():
        if name != OURS:
            wanted = f" (target: at least {TARGET_SPEED:g})" if name != WEBDATASET else ""
            lines.append(f"{ours.per_second / one.per_second:.2f} times {name}{wanted}")
    lines.append(f"{ours.share:.2f} of the sample's bytes read (target: at most {TARGET_BYTES:g})")
    return "\n".join(lines)


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
        PNG: ((_PngFolder,), files),
        NUMPY: ((_PlainPngFolder,), files),
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


if __name__ == "__main__":
    main()
