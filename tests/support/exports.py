"""A small dataset for tests of `lrm export`, and the content of an exported folder."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.storage import Storage
from dataset.format.shards import index_path, read_members, scan_tar, write_index, write_tar
from dataset.root import write_build
from dataset.snapshots.snapshot import Sample, open_snapshot, write_snapshot
from dataset.views import ViewSet, decode_views, encode_views
from tests.support.lrm import Answer, run_lrm
from tests.support.sphere_datasets import sphere_views

IDS = ["objaverse:" + "0" * 32, "objaverse:" + "1" * 32, "objaverse:" + "2" * 32, "other:a/b.c"]
NAMES = [asset_id.replace(":", "-") for asset_id in IDS[:3]] + ["other-a%2Fb%2Ec"]
SHARD = "shards/lrm32/spheres.tar"


@dataclass(frozen=True)
class ExportDataset:
    """A dataset of four spheres in one shard, 32 views each; one is for validation."""

    root: Storage
    snapshot: str

    @property
    def samples(self) -> list[Sample]:
        return list(open_snapshot(self.root, self.snapshot).samples)

    def views(self, asset_id: str) -> ViewSet:
        sample = next(sample for sample in self.samples if sample.asset_id == asset_id)
        members = read_members(self.root, sample.shard, sample.entry, sample.entry.members)
        return decode_views(members)[0]

    def words(self, layout: str, out: Path, *more: Any) -> list[Any]:
        """Return the arguments of `lrm export` for this dataset; `more` replaces options."""
        values = {"--root": self.root.uri, "--snapshot": self.snapshot}
        values |= {"--layout": layout, "--out": out, "--workers": "1"}
        own = [word for name, value in values.items() if name not in more for word in (name, value)]
        return ["export", *own, *more]

    def export(self, layout: str, out: Path, *more: Any) -> Answer:
        """Export this dataset with one worker process."""
        return run_lrm(*self.words(layout, out, *more))


def write_export_dataset(folder: Path) -> ExportDataset:
    """Write the dataset and return it."""
    root = Storage(str(folder))
    members = [
        dict(encode_views(sphere_views(seed, num_views=32, size=24), {"normalise": "cube"}))
        for seed in range(len(IDS))
    ]
    tar = io.BytesIO()
    write_tar(tar, zip(NAMES, members, strict=True))
    tar.seek(0)
    entries = list(scan_tar(tar))
    root.write(SHARD, tar.getvalue())
    root.write(index_path(SHARD), write_index(entries, "", len(tar.getvalue())))
    samples = [
        Sample(
            asset_id=asset_id,
            split="validation" if asset_id.startswith("other") else "train",
            rig="lrm32",
            sha256="",
            render_key=f"render of {name}",
            shard=SHARD,
            entry=entry,
            name="sphere",
            caption="a sphere",
            licence="by",
            author="unknown",
        )
        for asset_id, name, entry in zip(IDS, NAMES, entries, strict=True)
    ]
    write_build(root, {})
    return ExportDataset(root, write_snapshot(root, samples, None)["snapshot"])


def file_contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
