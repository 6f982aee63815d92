"""Shards: any WebDataset reader opens them, and the index finds every byte."""

import io
import os
import tarfile

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from core.errors import WorkFailed
from core.storage import Storage
from dataset.format.shards import (
    index_path,
    read_index,
    read_members,
    read_sample_tar,
    scan_tar,
    write_index,
    write_sample_tar,
    write_tar,
)

members = st.dictionaries(
    st.sampled_from(["json", "000.rgba.webp", "000.depth.png", "001.rgba.webp"]),
    st.binary(max_size=3000),
    min_size=1,
)


def write_shard(root: Storage, samples) -> str:
    tar = io.BytesIO()
    write_tar(tar, samples)
    tar.seek(0)
    root.write("a.tar", tar.getvalue())
    root.write(index_path("a.tar"), write_index(list(scan_tar(tar)), "ab", len(tar.getvalue())))
    return "a.tar"


@given(st.lists(members, min_size=1, max_size=5))
def test_every_member_is_read_by_its_range(tmp_path_factory, contents):
    root = Storage(str(tmp_path_factory.mktemp("shard")))
    samples = [(f"objaverse-{i}", content) for i, content in enumerate(contents)]
    entries, metadata = read_index(root, write_shard(root, samples))
    assert metadata["shard_sha256"] == "ab"
    assert [entry.key for entry in entries] == [key for key, _ in samples]
    for entry, (_, content) in zip(entries, samples, strict=True):
        assert read_members(root, "a.tar", entry, content) == content
        assert entry.num_bytes == sum(map(len, content.values()))


def test_the_webdataset_library_reads_a_shard(tmp_path):
    root = Storage(str(tmp_path))
    write_shard(root, [("objaverse-a", {"json": b'{"a": 1}', "000.rgba.webp": b"xyz"})])
    (sample,) = webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False)
    assert sample["__key__"] == "objaverse-a"
    assert sample["000.rgba.webp"] == b"xyz"


def test_equal_samples_give_equal_bytes_at_any_time(monkeypatch):
    def tar_bytes():
        tar = io.BytesIO()
        write_tar(tar, [("objaverse-a", {"json": b"{}"})])
        return tar.getvalue()

    first = tar_bytes()
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert tar_bytes() == first


def test_neighbouring_members_are_one_request(tmp_path, monkeypatch):
    root = Storage(str(tmp_path))
    content = {f"{view:03d}.rgba.webp": os.urandom(5000) for view in range(4)}
    entries, _ = read_index(root, write_shard(root, [("objaverse-a", content)]))
    calls = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: calls.append(args) or pread(*args))
    read_members(root, "a.tar", entries[0], ["000.rgba.webp", "001.rgba.webp", "003.rgba.webp"])
    assert len(calls) == 2


def test_a_flipped_byte_is_detected(tmp_path):
    root = Storage(str(tmp_path))
    entries, _ = read_index(root, write_shard(root, [("objaverse-a", {"json": b"hello"})]))
    data = bytearray(root.read("a.tar"))
    data[entries[0].offsets[0]] ^= 1
    root.write("a.tar", bytes(data))
    with pytest.raises(WorkFailed, match=r"objaverse-a\.json fails its checksum"):
        read_members(root, "a.tar", entries[0], ["json"])


def test_a_long_key_is_not_truncated(tmp_path):
    root = Storage(str(tmp_path))
    key = "files-" + "a%2F" * 80
    entries, _ = read_index(root, write_shard(root, [(key, {"json": b"{}"})]))
    assert entries[0].key == key
    assert read_members(root, "a.tar", entries[0], ["json"]) == {"json": b"{}"}


@given(members)
def test_the_tar_of_one_sample_survives_a_round_trip(content):
    assert read_sample_tar(write_sample_tar("objaverse-a", content)) == ("objaverse-a", content)


def test_a_torn_or_empty_sample_tar_is_an_error():
    data = write_sample_tar("objaverse-a", {"json": b"x" * 5000})
    with pytest.raises(WorkFailed, match="torn"):
        read_sample_tar(data[:3000])
    with pytest.raises(WorkFailed, match="empty"):
        tar = io.BytesIO()
        tarfile.open(fileobj=tar, mode="w").close()
        read_sample_tar(tar.getvalue())
