"""Shards with a few bytes per sample, written with the code of a build."""

from pathlib import Path
from typing import Any

from core.storage import Storage
from dataset.format.shards import SampleEntry, write_shard
from dataset.snapshots.snapshot import Sample, write_snapshot

MEMBERS = ("000.depth.webp", "000.rgba.webp", "json")


def key(number: int) -> str:
    """Return the key of a sample in its shard."""
    return f"objaverse-{number:032x}"


def content(number: int) -> dict[str, bytes]:
    """Return the members of a sample; no two members or samples have the same bytes."""
    return {name: (f"{name} of {number} " * (20 + 7 * number)).encode() for name in MEMBERS}


def small_sample(number: int, **fields: Any) -> Sample:
    """Return a row of a snapshot; its shard does not exist."""
    entry = SampleEntry(key=key(number), members=("json",), offsets=(0,), sizes=(5,), crc32=(1,))
    return Sample(
        **{
            "asset_id": f"objaverse:{number:032x}",
            "split": "train",
            "rig": "test",
            "sha256": f"file {number}",
            "render_key": f"render {number}",
            "shard": "shards/test/a.tar",
            "entry": entry,
            "name": f"object {number}",
            "caption": None,
            "licence": "by",
            "author": None,
        }
        | fields
    )


def write_small_shard(root: Storage, shard: str, numbers: list[int]) -> str:
    """Write a shard of these samples and its index; return the SHA-256 of the shard."""
    samples = [(key(number), content(number)) for number in numbers]
    scratch = Path(root.resolve("scratch.tar"))
    scratch.parent.mkdir(parents=True, exist_ok=True)
    _, sha256, _ = write_shard(root, samples, scratch, name=lambda _: shard)
    scratch.unlink()
    return sha256


def write_test_snapshot(root: Storage, entries, shards: dict[str, str], days: float = 90) -> str:
    """Create a snapshot of these index entries; return its id.

    `shards` maps each key to its shard; `days` is the protection from compaction.
    """
    samples = [
        Sample(
            asset_id=entry.key.replace("-", ":"),
            split="train",
            rig="test",
            sha256="",
            render_key="",
            shard=shards[entry.key],
            entry=entry,
            name="sphere",
            caption=None,
            licence="by",
            author=None,
        )
        for entry in entries
    ]
    return write_snapshot(root, samples, None, days)["snapshot"]
