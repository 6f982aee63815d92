"""Tables of Objaverse: gzip-compressed JSON objects, read with limits."""

import gzip
import io
import json
import re
import zlib
from itertools import islice
from typing import Any

__all__ = ["MAX_BYTES", "read_table"]

MAX_BYTES = 256 << 20
"""Maximum size of a table, compressed or not. Objaverse 1.0's largest, object-paths.json.gz, has 20
MB, and 75 MB when decompressed."""
_MAX_VALUES = 10_000_000
"""Values of a table, keys included. Python needs about 100 bytes for each, however short it is;
object-paths.json.gz has 1.6 million."""
_MAX_DEPTH = 64
"""Levels of nesting that are kept in a table that Python's parser cannot read for its depth."""
_MAX_DIGITS = 1000
"""Digits of a number that is converted; Python refuses more than 4300."""
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[{]|[\]}]', re.DOTALL)
"""A string or a bracket of JSON."""
_STARTS = b"[{,:"
"""What stands before a value or a key."""
_STRING_OR_START = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[{,:]', re.DOTALL)


def read_table(data: bytes) -> dict[str, Any]:
    """Return the JSON object in a gzip-compressed table; of repeated keys, the last one counts.

    Bytes that are not valid Unicode become lone surrogates, values that are nested too deeply
    become null, and numbers of thousands of digits NaN: they are faults of single rows. Raises
    ValueError with the reason if the table as a whole cannot be read.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(str(error)) from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES >> 20} MiB when decompressed")
    text = content.decode(json.detect_encoding(content), "surrogateescape")
    # Most tables have fewer of these characters, even with those in texts.
    may_be_too_many = sum(map(content.count, _STARTS)) >= _MAX_VALUES
    del content
    if may_be_too_many and _has_too_many_values(text):
        raise ValueError(f"it has more than {_MAX_VALUES:,} values")
    try:
        values = _parse(text)
    except RecursionError:
        values = _parse(_without_deep_values(text))
    if not isinstance(values, dict):
        raise ValueError("it is not a JSON object")
    return values


def _has_too_many_values(text: str) -> bool:
    starts = (token for token in _STRING_OR_START.finditer(text) if token[0] in "[{,:")
    return next(islice(starts, _MAX_VALUES, None), None) is not None


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # a number with more digits than Python converts
        return json.loads(text, parse_int=_whole_number)


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) < _MAX_DIGITS else float("nan")


def _without_deep_values(text: str) -> str:
    """Return JSON with null for every list or object below the maximum depth."""
    kept: list[str] = []
    depth, copied = 0, 0
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth == _MAX_DEPTH + 1:
                kept.append(text[copied : token.start()])
        elif token[0] in "]}":
            if depth == _MAX_DEPTH + 1:
                kept.append("null")
                copied = token.end()
            depth -= 1
    return "".join([*kept, text[copied:] if depth <= _MAX_DEPTH else "null"])
