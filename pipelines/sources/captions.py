"""Captions of Cap3D: a CSV of `id,caption`, without a header."""

import csv
import hashlib
import io
import re
from typing import IO

import fsspec

from core.errors import BadInput
from core.storage import storage_errors

__all__ = ["read_captions"]

_ID = re.compile(r"^(?:[0-9a-f]{32}|[0-9a-f]{64})$")


def read_captions(uri: str) -> tuple[dict[str, str], str]:
    """Return captions by id, and the revision of the file (first 16 digits of its SHA-256).

    Ids are Objaverse uids (32 hexadecimal digits) or, for Objaverse-XL, the SHA-256 of files (64
    digits). If an id occurs more than once, its last row is used. Raises BadInput if the file
    cannot be read, a row is not `id,caption`, or the file ends in the middle of a row.
    """
    captions: dict[str, str] = {}
    try:
        with fsspec.open(uri, "rb") as file:
            reader = _HashingReader(file)
            text = io.TextIOWrapper(io.BufferedReader(reader, 1 << 20), "utf-8", newline="")
            _parse(text, uri, captions)
    except storage_errors(ValueError, ImportError) as error:
        problem = getattr(error, "strerror", None) or error
        raise BadInput(f"{uri}: cannot read the captions: {problem}") from None
    if reader.last_byte not in (b"", b"\n"):
        raise BadInput(
            f"{uri}: the last line has no newline, so the file may be truncated: download it again "
            "(if it is complete, add a newline at its end)"
        )
    return captions, reader.digest.hexdigest()[:16]


class _HashingReader(io.RawIOBase):
    """A reader that hashes the bytes it reads."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.last_byte = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        if data:
            self.digest.update(data)
            self.last_byte = data[-1:]
        return len(data)


def _parse(text: IO[str], uri: str, captions: dict[str, str]) -> None:
    reader = csv.reader(text, strict=True)
    matches = _ID.match
    try:
        for row in reader:
            if len(row) == 2 and matches(row[0]):
                captions[row[0]] = row[1]
            elif row:
                raise _bad_row(row, f"{uri} line {reader.line_num}")
    except csv.Error as error:
        raise BadInput(f"{uri} line {reader.line_num}: {error} (is the file truncated?)") from None


def _bad_row(row: list[str], where: str) -> BadInput:
    if len(row) != 2:
        return BadInput(f"{where}: expected 2 columns (id,caption), got {len(row)}")
    return BadInput(f"{where}: {row[0][:80]!r} is neither an Objaverse uid nor a SHA-256")
