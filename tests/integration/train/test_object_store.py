"""Training samples from an object store, through a proxy that counts and cuts responses."""

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
from core.retrying_storage import ReadConfig, RetryingStorage
from dataset.snapshots.snapshot import open_snapshot
from train.data.augment import AugmentConfig
from train.data.order import sample_at
from train.data.patches import ViewDataConfig, ViewDataset
from train.data.step_views import ObjectDataset
from train.data.whole_frames import FrameDataConfig, FrameDataset

SEED = 5
VIEWS = {"num_inputs": 2, "num_targets": 1, "augment": AugmentConfig()}
CONFIGS = {
    ViewDataset: ViewDataConfig(**VIEWS, patch_size=16, target_size_min=16, target_size_max=32),
    FrameDataset: FrameDataConfig(**VIEWS, frame_size=64),
}
HEADER_BYTES = 500
"""Maximum size of a response's headers."""
TAR_HEADER_BYTES = 1024
"""Maximum size of a member's header with the padding of the one before."""


class Proxy:
    """TCP proxy to a server, which counts the bytes of its responses and can cut one off."""

    def __init__(self, address: str) -> None:
        url = urlsplit(address)
        self._server = (url.hostname, url.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.received, self.responses = 0, 0
        self.cut_after: int | None = None
        """Cut the connection after this many bytes of a response, once."""
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
                arguments = (source, sink, source is server)
                threading.Thread(target=self._pump, args=arguments, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_response: bool) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(1 << 16):
                if is_response:
                    self.responses += block.startswith(b"HTTP/")
                    self.received += len(block)
                    if self.cut_after is not None and len(block) > self.cut_after:
                        sink.sendall(block[: self.cut_after])
                        self.cut_after = None
                        break
                sink.sendall(block)
        for connection in (source, sink):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(endpoint, bucket, sphere_dataset, monkeypatch) -> Iterator[Proxy]:
    """Yield a proxy to the store of a bucket that holds the spheres."""
    folder = Path(sphere_dataset[0].uri)
    for path in folder.rglob("*"):
        if path.is_file():
            bucket.upload_file(str(path), f"spheres/{path.relative_to(folder)}")
    proxy = Proxy(endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield proxy
    proxy.close()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def open_bucket(bucket, **settings) -> RetryingStorage:
    config = ReadConfig(**{"backoff_seconds": 0, "attempts": 3} | settings)
    return RetryingStorage(f"s3://{bucket.name}/spheres", config)


def open_dataset(cls, root, sphere_dataset) -> ObjectDataset:
    samples = open_snapshot(*sphere_dataset).samples
    return cls(root, samples, CONFIGS[cls], input_size=20, seed=SEED)


def is_equal(item, other) -> bool:
    return item.keys() == other.keys() and all(
        torch.equal(item[name], other[name]) for name in item
    )


@pytest.mark.parametrize("kind", CONFIGS)
def test_items_equal_those_from_a_local_disk_and_few_extra_bytes_are_read(
    kind, proxy, bucket, sphere_dataset
):
    local = open_dataset(kind, sphere_dataset[0], sphere_dataset)
    remote = open_dataset(kind, open_bucket(bucket), sphere_dataset)
    for position in range(3):
        sample = local._samples[sample_at(position, 6, SEED)]
        proxy.received = proxy.responses = 0
        item = remote[position]
        assert is_equal(item, local[position])
        sizes = dict(zip(sample.entry.members, sample.entry.sizes, strict=True))
        # Three of twelve views, and at most a quarter more for the bytes between them, or headers.
        suffixes = tuple(f".{name}.webp" for name in kind.kinds)
        picture_sizes = sorted(size for name, size in sizes.items() if name.endswith(suffixes))
        needed_bytes = sizes["json"] + sum(picture_sizes[-3 * len(kind.kinds) :])
        assert proxy.responses >= 1
        num_members = 1 + 3 * len(kind.kinds)
        limit = 1.25 * needed_bytes + proxy.responses * HEADER_BYTES
        assert proxy.received <= limit + (num_members - proxy.responses) * TAR_HEADER_BYTES
        assert proxy.received < sample.entry.num_bytes / 2


def test_a_response_that_is_cut_off_is_requested_again(proxy, bucket, sphere_dataset):
    remote = open_dataset(FrameDataset, open_bucket(bucket), sphere_dataset)
    local = open_dataset(FrameDataset, sphere_dataset[0], sphere_dataset)
    proxy.cut_after = 700
    assert is_equal(remote[0], local[0])
    assert proxy.cut_after is None


def test_an_unreachable_store_is_not_damage(proxy, bucket, sphere_dataset):
    remote = open_dataset(
        FrameDataset, open_bucket(bucket, attempts=2, timeout_seconds=0.5), sphere_dataset
    )
    proxy.close()
    with pytest.raises(WorkFailed, match=r"cannot read its views in .*after 2 attempts") as error:
        remote[0]
    assert not isinstance(error.value, FinalFailure)


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_missing_or_truncated_shard_is_damage(proxy, bucket, sphere_dataset, damage):
    samples = open_snapshot(*sphere_dataset).samples
    index = sample_at(0, 6, SEED)
    shard = bucket.Object(f"spheres/{samples[0].shard}")
    body = shard.get()["Body"].read()
    if damage == "missing":
        shard.delete()
        with pytest.raises(FinalFailure, match=r"FileNotFoundError.*6 samples are damaged"):
            open_dataset(FrameDataset, open_bucket(bucket), sphere_dataset)[0]
        return
    shard.put(Body=body[: samples[index].entry.offsets[0] + 40])
    replacement = (
        open_dataset(FrameDataset, open_bucket(bucket), sphere_dataset).read(0).replacement
    )
    assert replacement is not None
    assert replacement.faults[0].asset_id == samples[index].asset_id
