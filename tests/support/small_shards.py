"""Shards of a few bytes, written as a build writes them."""

from pathlib import Path

from core.storage import Storage
from dataset.format.shards import write_shard
from dataset.snapshots.snapshot import Sample, write_snapshot

MEMBERS = ("000.depth.webp", "000.rgba.webp", "json")


def key(number: int) -> str:
    return f"objaverse-{number:032x}"


def content(number: int) -> dict[str, bytes]:
    """The members of a sample: every sample and member has bytes of its own."""
    return {name: (f"{name} of {number} " * (20 + 7 * number)).encode() for name in MEMBERS}


def write_small_shard(root: Storage, shard: str, numbers: list[int]) -> str:
    """A shard of these samples, with its index; its SHA-256."""
    samples = [(key(number), content(number)) for number in numbers]
    scratch = Path(root.resolve("scratch.tar"))
    scratch.parent.mkdir(parents=True, exist_ok=True)
    _, sha256, _ = write_shard(root, samples, scratch, name=lambda _: shard)
    scratch.unlink()
    return sha256


def freeze(root: Storage, entries, shards: dict[str, str], days: float = 90) -> str:
    """A snapshot of these entries; `shards` says where each key lies."""
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
