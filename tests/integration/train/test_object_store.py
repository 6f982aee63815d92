"""Training samples out of an object store, over real sockets that count bytes and break."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import fsspec
import pytest
import torch

from core.errors import FinalFailure, WorkFailed
from core.retrying_storage import PatientStorage, ReadConfig
from dataset.snapshots.snapshot import open_snapshot
from train.data.augment import AugmentConfig
from train.data.order import sample_at
from train.data.patches import ViewDataConfig, ViewDataset
from train.data.step_views import ObjectDataset
from train.data.whole_frames import FrameDataConfig, FrameDataset

SEED = 5
VIEWS = {"num_inputs": 2, "num_targets": 1, "augment": AugmentConfig()}
STAGES = {
    ViewDataset: ViewDataConfig(**VIEWS, patch_size=16, target_size_min=16, target_size_max=32),
    FrameDataset: FrameDataConfig(**VIEWS, frame_size=64),
}
HEADERS = 500
"""Bytes of a response beside its body, at most."""


class Wire:
    """Forwards connections to a server; counts what it answers, and cuts answers off."""

    def __init__(self, address: str) -> None:
        place = urlsplit(address)
        self._server = (place.hostname, place.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.received, self.answers = 0, 0
        self.cut_after: int | None = None
        """Bytes of an answer after which its connection breaks, once."""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            for source, sink in ((client, server), (server, client)):
                pump = (source, sink, source is server)
                threading.Thread(target=self._pump, args=pump, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(1 << 16):
                if answers:
                    self.answers += block.startswith(b"HTTP/")
                    self.received += len(block)
                    if self.cut_after is not None and len(block) > self.cut_after:
                        sink.sendall(block[: self.cut_after])
                        self.cut_after = None
                        break
                sink.sendall(block)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def wire(endpoint, bucket, sphere_dataset, monkeypatch) -> Iterator[Wire]:
    """A way to a bucket that holds the spheres."""
    folder = Path(sphere_dataset[0].uri)
    for path in folder.rglob("*"):
        if path.is_file():
            bucket.upload_file(str(path), f"spheres/{path.relative_to(folder)}")
    wire = Wire(endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", wire.address)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield wire
    wire.close()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def open_bucket(bucket, **settings) -> PatientStorage:
    config = ReadConfig(**{"backoff_seconds": 0, "attempts": 3} | settings)
    return PatientStorage(f"s3://{bucket.name}/spheres", config)


def open_stage(kind, root, sphere_dataset) -> ObjectDataset:
    samples = open_snapshot(*sphere_dataset).samples
    return kind(root, samples, STAGES[kind], input_size=20, seed=SEED)


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", STAGES)
def test_items_are_those_of_the_local_disk_and_little_more_is_asked_for(
    kind, wire, bucket, sphere_dataset
):
    local = open_stage(kind, sphere_dataset[0], sphere_dataset)
    remote = open_stage(kind, open_bucket(bucket), sphere_dataset)
    for position in range(3):
        sample = local._samples[sample_at(position, 6, SEED)]
        wire.received = wire.answers = 0
        item = remote[position]
        assert same(item, local[position])
        sizes = dict(zip(sample.entry.members, sample.entry.sizes, strict=True))
        # Three views of twelve, and a quarter more of what lies between them.
        ends = tuple(f".{each}.webp" for each in kind.kinds)
        pictures = sorted(size for name, size in sizes.items() if name.endswith(ends))
        wanted = sizes["json"] + sum(pictures[-3 * len(kind.kinds) :])
        assert wire.answers >= 1
        assert wire.received <= 1.25 * wanted + wire.answers * HEADERS
        assert wire.received < sample.entry.num_bytes / 2


def test_an_answer_that_breaks_off_is_asked_for_again(wire, bucket, sphere_dataset):
    remote = open_stage(FrameDataset, open_bucket(bucket), sphere_dataset)
    local = open_stage(FrameDataset, sphere_dataset[0], sphere_dataset)
    wire.cut_after = 700
    assert same(remote[0], local[0])
    assert wire.cut_after is None


def test_a_store_that_cannot_be_reached_is_no_damage(wire, bucket, sphere_dataset):
    remote = open_stage(
        FrameDataset, open_bucket(bucket, attempts=2, timeout_seconds=0.5), sphere_dataset
    )
    wire.close()
    with pytest.raises(WorkFailed, match=r"cannot read its views in .*after 2 attempts") as error:
        remote[0]
    assert not isinstance(error.value, FinalFailure)


@pytest.mark.parametrize("damage", ["gone", "short"])
def test_a_shard_that_is_gone_or_short_is_damage(wire, bucket, sphere_dataset, damage):
    samples = open_snapshot(*sphere_dataset).samples
    number = sample_at(0, 6, SEED)
    shard = bucket.Object(f"spheres/{samples[0].shard}")
    body = shard.get()["Body"].read()
    if damage == "gone":
        shard.delete()
        with pytest.raises(FinalFailure, match=r"FileNotFoundError.*6 samples are damaged"):
            open_stage(FrameDataset, open_bucket(bucket), sphere_dataset)[0]
        return
    shard.put(Body=body[: samples[number].entry.offsets[0] + 40])
    found = open_stage(FrameDataset, open_bucket(bucket), sphere_dataset).read(0).replacement
    assert found is not None
    assert found.faults[0].asset_id == samples[number].asset_id
