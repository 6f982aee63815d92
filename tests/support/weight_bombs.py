"""Small weight files that state, or unpack to, far more than they hold."""

import contextlib
import io
import os
import pickle
import resource
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

__all__ = ["BOMBS", "SAFETENSORS_BOMBS", "limited_memory", "write_archive"]

HUGE = 10**13


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


class Storage:
    """A storage that states a number of values."""

    def __init__(self, numel: Any, kind: Any = torch.FloatStorage, key: Any = "0") -> None:
        self.numel, self.kind, self.key = numel, kind, key


class Pickler(pickle.Pickler):
    """A pickler that writes storages as PyTorch does."""

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Storage):
            return "storage", value.kind, value.key, "cpu", value.numel
        return None


def pickled(content: Any) -> bytes:
    """Return a pickle of the protocol that PyTorch uses."""
    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump(content)
    return stream.getvalue()


def tensor(shape: tuple, stride: tuple, offset: Any = 0, storage: Any = None) -> Call:
    """Return a tensor of any stated size; its storage has 4 values by default."""
    arguments = (storage or Storage(4), offset, shape, stride, False, None)
    return Call(torch._utils._rebuild_tensor_v2, *arguments)


def write_archive(
    path: Path,
    content: Any = None,
    *,
    raw: bytes = b"",
    values: bytes = bytes(16),
    compression: int = zipfile.ZIP_STORED,
) -> None:
    """Write a file in PyTorch's format with one storage; `raw` replaces the pickle."""
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", raw or pickled(content))
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", values)


def one(value: Any) -> dict[str, Any]:
    """Return a state dict of one entry."""
    return {"state_dict": {"weight": value}}


def doubled_key() -> bytes:
    """Return a pickle of a dictionary whose key is a tuple of tuples, 2^60 in all."""
    nested = b"".join(b"q%ch%c\x86" % (n, n) for n in range(60))
    return b"\x80\x02}(K\x01" + nested + b"K\x01u."


def encoded_again() -> bytes:
    """Return a pickle that encodes a text of 100 kB 10,000 times."""
    start = b"\x80\x02]q\x00(X" + struct.pack("<I", 10**5) + b"a" * 10**5 + b"q\x01"
    start += b"c_codecs\nencode\nq\x02"
    return start + b"h\x02h\x01\x85R" * 10_000 + b"e."


def again(arguments: bytes) -> bytes:
    """Return a pickle that makes dictionaries of the same arguments again and again."""
    start = b"\x80\x02]q\x00(ccollections\nOrderedDict\nq\x01" + arguments + b"q\x02"
    return start + b"h\x01h\x02R" * 6000 + b"e."


def saved(value: Any, **options: Any) -> Callable[[Path], None]:
    """Return a writer by PyTorch itself."""
    return lambda path: torch.save(one(value()), path, **options)


def archive(content: Any = None, **options: Any) -> Callable[[Path], None]:
    """Return a writer of an archive."""
    return lambda path: write_archive(path, content, **options)


def edited(path: Path, change: Callable[[bytearray], None]) -> None:
    """Write a sound archive, then change its bytes."""
    write_archive(path, one(tensor((4,), (1,))))
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def large_directory(path: Path) -> None:
    """Write an archive that states a directory of 2 GB, which are holes of the file."""
    edited(path, lambda data: data.__setitem__(slice(-10, -6), struct.pack("<L", 2 * 10**9)))
    end = path.read_bytes()[-22:]
    with open(path, "r+b") as file:
        file.truncate(3 * 10**9)
        file.seek(-22, os.SEEK_END)
        file.write(end)


def large_entry(path: Path) -> None:
    """Write an archive whose directory states 4 GB for an entry."""

    def change(data: bytearray) -> None:
        entry = data.rindex(b"PK\1\2")
        data[entry + 20 : entry + 28] = struct.pack("<2L", 4 * 10**9, 4 * 10**9)

    edited(path, change)


def legacy(content: Any, keys: Any, values: bytes) -> Callable[[Path], None]:
    """Return a writer of the format before PyTorch 1.6."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}

    class Old(Pickler):
        def persistent_id(self, value: Any) -> Any:
            base = super().persistent_id(value)
            return None if base is None else (*base, None)

    def write(path: Path) -> None:
        with open(path, "wb") as file:
            for value in (0x1950A86A20F9469CFC6C, 1001, system, content, keys):
                Old(file, protocol=2).dump(value)
            file.write(values)

    return write


def _quantised() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # deprecated in PyTorch
        return torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)


BOMBS: dict[str, Callable[[Path], None]] = {
    "compressed-pickle": archive(raw=bytes(10**8), compression=zipfile.ZIP_DEFLATED),
    "compressed-values": archive(
        one(tensor((4,), (1,))), values=bytes(10**8), compression=zipfile.ZIP_DEFLATED
    ),
    "stride-0": saved(lambda: torch.zeros(1).expand(10**6, 10**7)),
    "overlapping-strides": archive(one(tensor((HUGE, 4), (0, 1)))),
    "larger-than-its-storage": archive(one(tensor((HUGE,), (1,)))),
    "storage-larger-than-the-file": archive(one(tensor((HUGE,), (1,), 0, Storage(HUGE)))),
    "negative-storage": archive(one(tensor((4,), (1,), 0, Storage(-1)))),
    "storage-of-text": archive(one(tensor((4,), (1,), 0, Storage("4")))),
    "missing-storage": archive(one(tensor((4,), (1,), 0, Storage(4, key="1")))),
    "negative-shape": archive(one(tensor((-4,), (1,)))),
    "negative-stride": archive(one(tensor((4,), (-1,), 3))),
    "shape-of-256-bits": archive(one(tensor((2**256,), (0,)))),
    "offset-outside": archive(one(tensor((4,), (1,), 2**40))),
    "thousands-of-dimensions": archive(one(tensor((1,) * 5000, (1,) * 5000))),
    "one-storage-in-many-tensors": archive(
        {str(n): tensor((10**6,), (1,), 0, Storage(10**6)) for n in range(100)},
        values=bytes(4 * 10**6),
    ),
    "bytearray": archive(one(Call(bytearray, HUGE))),
    "untyped-storage": archive(one(Call(torch.UntypedStorage, HUGE))),
    "tensor-constructor": archive(one(Call(torch.Tensor, 10**6, 10**7))),
    "encoded-again": archive(raw=encoded_again()),
    "hash-without-end": archive(raw=doubled_key()),
    "a-list-copied-again": archive(
        raw=b"\x80\x02ccollections\nOrderedDict\nq\x00]q\x01(" + b"K\x01K\x02\x86" * 3000 + b"e\x85"
        b"q\x02" + b"h\x00h\x02R" * 3000 + b"."
    ),
    "pairs-copied-again": archive(raw=again(b"(" + b"K\x01K\x02\x86" * 20_000 + b"t\x85")),
    "keys-copied-again": archive(
        raw=again(b"}(" + b"".join(b"X\2\0\0\0%2dK\1" % n for n in range(100)) + b"u\x85")
    ),
    "arguments-copied-again": archive(raw=again(b"(" + b"K\x01" * 20_000 + b"t")),
    "key-of-a-megabyte": archive({"state_dict": {"a\nb" + "x" * 10**6: 1}}),
    "memo-of-4-billion": archive(raw=b"\x80\x02Nr\xff\xff\xff\xff."),
    "many-instructions": archive(raw=b"\x80\x02" + b"]" * 3_000_000 + b"."),
    "long-pickle": archive(raw=b"\x80\x02" + b"]" * 5_000_000 + b"."),
    "text-of-4-gigabytes": archive(raw=b"\x80\x02X\xff\xff\xff\xff."),
    "bytes-of-8-exabytes": archive(raw=b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f."),
    "nested-lists": archive(raw=b"\x80\x02" + b"]" * 9000 + b"a" * 8999 + b"."),
    "cyclic-list": archive(raw=b"\x80\x02]q\x00h\x00a."),
    "cut-pickle": archive(raw=b"\x80\x02}q\x00(X"),
    "empty-stack": archive(raw=b"\x80\x02\x86R."),
    "quantised": saved(_quantised),
    "meta": saved(lambda: torch.empty(10**6, 10**7, device="meta")),
    "sparse": saved(lambda: torch.zeros(10**3, 10**3).to_sparse()),
    "large-directory": large_directory,
    "large-entry": large_entry,
    "appended": lambda path: edited(path, lambda data: data.extend(b"more")),
    "legacy-larger-than-the-file": legacy(
        one(tensor((HUGE,), (1,), 0, Storage(HUGE))), ["0"], struct.pack("<q", HUGE)
    ),
    "legacy-other-number": legacy(one(tensor((4,), (1,))), ["0"], struct.pack("<q", HUGE)),
    "legacy-keys": legacy(one(tensor((4,), (1,))), ["0"] * 10**5, bytes(100)),
    "legacy-values": legacy(one(tensor((4,), (1,))), ["0"], struct.pack("<q", 4)),
}
"""Writers of a file of PyTorch, by the kind of bomb."""


def _safetensors(header: bytes, length: int | None = None, size: int = 0) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header)
        os.truncate(path, path.stat().st_size + size)

    return write


def _entry(shape: str, offsets: str, dtype: str = "F32") -> bytes:
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'.encode()


SAFETENSORS_BOMBS: dict[str, Callable[[Path], None]] = {
    "empty": _safetensors(b"", 0),
    "header-beyond-the-file": _safetensors(b"{}", 2**62),
    "header-of-90-megabytes": _safetensors(b"{}", 90_000_000, 90_000_000),
    "nested-header": _safetensors(b'{"a":' * 10**5),
    "overlapping": _safetensors(
        b'{"a":' + _entry("[4]", "[0,16]") + b',"b":' + _entry("[4]", "[0,16]") + b"}", size=16
    ),
    "larger-than-the-file": _safetensors(b'{"a":' + _entry(f"[{HUGE}]", f"[0,{4 * HUGE}]") + b"}"),
    "shape-overflow": _safetensors(
        b'{"a":' + _entry("[4294967296,4294967296,4]", "[0,0]") + b"}", size=0
    ),
    "negative-shape": _safetensors(b'{"a":' + _entry("[-4]", "[0,16]") + b"}", size=16),
    "unknown-type": _safetensors(b'{"a":' + _entry("[4]", "[0,16]", "Q9") + b"}", size=16),
    "a-gap": _safetensors(b'{"a":' + _entry("[4]", "[0,16]") + b"}", size=10**7),
}
"""Writers of a .safetensors, by the kind of bomb."""


@contextlib.contextmanager
def limited_memory(more: int) -> Iterator[None]:
    """Let this process map at most this many bytes more than it has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
