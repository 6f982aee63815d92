"""Cap3D captions: a CSV of `id,caption` without a header."""

import csv
import hashlib
import io
import re

import fsspec

from dataset.errors import BadInput

__all__ = ["read_captions"]

_ID = re.compile(r"^(?:[0-9a-f]{32}|[0-9a-f]{64})$")


def read_captions(uri: str) -> tuple[dict[str, str], str]:
    """Captions by Objaverse uid, and the revision of the file (16 digits of its SHA-256).

    Rows with a 64-character id are Objaverse-XL's (keyed by file hash) and are passed over; of
    repeated ids the last counts. Raises BadInput with the line number if the file cannot be read,
    a row is no `id,caption`, or the file ends in the middle of a row.
    """
    try:
        with fsspec.open(uri, "rb") as file:
            data: bytes = file.read()
        text = data.decode("utf-8")
    except (OSError, ValueError, ImportError) as error:
        raise BadInput(f"{uri}: cannot read the captions: {error}") from None
    if text and not text.endswith("\n"):
        raise BadInput(
            f"{uri}: ends in the middle of a line: the file is truncated (fetch it again; if it is "
            "complete, end it with a newline)"
        )
    captions: dict[str, str] = {}
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            _take(row, captions, f"{uri} line {reader.line_num}")
    except csv.Error as error:
        raise BadInput(f"{uri} line {reader.line_num}: {error} (truncated?)") from None
    return captions, hashlib.sha256(data).hexdigest()[:16]


def _take(row: list[str], captions: dict[str, str], where: str) -> None:
    if not row:
        return
    if len(row) != 2:
        raise BadInput(f"{where}: expected id,caption, found {len(row)} columns")
    native_id, caption = row
    if not _ID.match(native_id):
        raise BadInput(f"{where}: {native_id[:80]!r} is no Objaverse uid or SHA-256")
    if len(native_id) == 32:
        captions[native_id] = caption
