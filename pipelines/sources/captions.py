"""Cap3D captions: a CSV of `id,caption` without a header."""

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
    """Return captions by id, and the revision of the file (16 digits of its SHA-256).

    Ids are Objaverse uids (32 digits) or, for Objaverse-XL, the SHA-256 of files (64 digits); of
    repeated ids the last counts. Raises BadInput with the line number if the file cannot be read,
    a row is no `id,caption`, or the file ends in the middle of a row.
    """
    captions: dict[str, str] = {}
    try:
        with fsspec.open(uri, "rb") as file:
            hashed = _Hashed(file)
            text = io.TextIOWrapper(io.BufferedReader(hashed, 1 << 20), "utf-8", newline="")
            _parse(text, uri, captions)
    except storage_errors(ValueError, ImportError) as error:
        raise BadInput(f"{uri}: cannot read the captions: {error}") from None
    if hashed.last not in (b"", b"\n"):
        raise BadInput(
            f"{uri}: ends in the middle of a line: the file is truncated (fetch it again; if it is "
            "complete, end it with a newline)"
        )
    return captions, hashed.digest.hexdigest()[:16]


class _Hashed(io.RawIOBase):
    """A file whose bytes are hashed as they pass."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.last = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        if data:
            self.digest.update(data)
            self.last = data[-1:]
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
        raise BadInput(f"{uri} line {reader.line_num}: {error} (truncated?)") from None


def _bad_row(row: list[str], where: str) -> BadInput:
    if len(row) != 2:
        return BadInput(f"{where}: expected id,caption, found {len(row)} columns")
    return BadInput(f"{where}: {row[0][:80]!r} is no Objaverse uid or SHA-256")
