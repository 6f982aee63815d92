"""Captions of Cap3D: a CSV of `id,caption`."""

import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from core.errors import BadInput
from core.storage import Storage, storage_errors
from pipelines.sources.csv_rows import csv_rows
from pipelines.sources.objaverse_ids import is_objaverse_id
from pipelines.sources.skipped_rows import SkippedRows, shown

__all__ = ["Captions", "read_captions"]

_ROW_START = re.compile(r'"?(?:[0-9a-f]{32}|[0-9a-f]{64}|[0-9A-Za-z]{27})"?,')
"""The start of a row with an id of one of the published lengths."""
_MAX_BYTES = 2 << 30
"""Maximum size of the file when decompressed. Cap3D's has 0.2 GB."""


@dataclass(frozen=True, kw_only=True)
class Captions:
    """The captions of a file."""

    texts: Mapping[str, str]
    """The captions by the objects' native ids."""
    revision: str
    """The first 16 digits of the file's SHA-256."""
    skipped: SkippedRows


def read_captions(uri: str) -> Captions:
    """Return the captions of a CSV file, which may be compressed if its name ends with `.gz`.

    Ids are those of Objaverse or, for Objaverse-XL, the SHA-256 of files (64 digits). If an id
    occurs more than once, its last row is used. A first row whose second cell is `caption` is a
    header. Rows that cannot be read are skipped. Raises BadInput if these are most rows, or if the
    file cannot be read, is empty or too large, or ends in the middle of a line.
    """
    texts: dict[str, str] = {}
    skipped = SkippedRows(table=uri)
    try:
        with Storage(uri).open("") as file:
            stored = _HashingReader(file)
            content = _LimitedReader(
                gzip.GzipFile(fileobj=stored) if uri.endswith(".gz") else stored, uri
            )
            _parse(io.BufferedReader(content, 1 << 20), texts, skipped)
    except storage_errors(ValueError, ImportError, EOFError, zlib.error) as error:
        problem = getattr(error, "strerror", None) or error
        raise BadInput(f"{uri}: cannot read the captions: {problem}") from None
    skipped.require_most_readable()
    if content.last_byte not in (b"", b"\n", b"\r"):
        raise BadInput(
            f"{uri}: the last line has no newline, so the file may be truncated: download it again "
            "(if it is complete, add a newline at its end)"
        )
    if not texts:
        raise BadInput(f"{uri}: has no caption: download it again, or leave out --captions")
    return Captions(texts=texts, revision=stored.digest.hexdigest()[:16], skipped=skipped)


class _HashingReader(io.RawIOBase):
    """A reader that hashes the bytes it reads."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.digest.update(data)
        return len(data)


class _LimitedReader(io.RawIOBase):
    """A reader that raises BadInput after too many bytes, and knows the last byte."""

    def __init__(self, file: io.RawIOBase | gzip.GzipFile, uri: str) -> None:
        self._file = file
        self._uri = uri
        self._num_bytes = 0
        self.last_byte = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(len(buffer)) or b""
        buffer[: len(data)] = data
        self._num_bytes += len(data)
        if self._num_bytes > _MAX_BYTES:
            raise BadInput(f"{self._uri}: has more than {_MAX_BYTES >> 20} MiB of captions")
        self.last_byte = data[-1:] or self.last_byte
        return len(data)


def _parse(file: IO[bytes], texts: dict[str, str], skipped: SkippedRows) -> None:
    num_rows = 0
    for line, cells, problem in csv_rows(file, _ROW_START):
        if not num_rows and _is_header(cells):
            continue
        num_rows += 1
        native_id = cells[0].strip()
        if not problem and len(cells) == 2 and is_objaverse_id(native_id):
            texts[native_id] = cells[1]
        else:
            skipped.skip(f"line {line}", problem or _problem(cells))
    skipped.num_rows = num_rows


def _is_header(cells: list[str]) -> bool:
    return len(cells) == 2 and cells[1].strip().lower() == "caption"


def _problem(cells: list[str]) -> str:
    """Return why these cells are no id and caption."""
    if len(cells) != 2:
        return f"expected 2 columns (id,caption), got {len(cells)}"
    return f"{shown(cells[0])} is not an id"
