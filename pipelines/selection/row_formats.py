"""Rows of objects as lines of ids, a table, CSV, JSON or Parquet, written block by block."""

import csv
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import BadInput
from core.safe_text import printable
from filters.chain import reason_title
from pipelines.selection.decided_columns import JSON_COLUMNS
from pipelines.selection.object_names import id_line

__all__ = ["FORMATS"]

_MAX_WIDTH = 60
"""Characters of a cell in a table; longer values are cut."""


def _write_ids(_: pa.Schema, blocks: Iterable[pa.Table]) -> None:
    for block in blocks:
        lines = map(id_line, block["asset_id"].to_pylist())
        sys.stdout.write("".join(f"{line}\n" for line in lines))


def _write_table(schema: pa.Schema, blocks: Iterable[pa.Table]) -> None:
    """Write aligned columns; their widths are those of the first block of rows."""
    align = [">" if _is_number(field.type) else "<" for field in schema]
    widths: list[int] = []
    for block in blocks:
        columns = [_table_cells(name, block[name].to_pylist()) for name in schema.names]
        rows = list(zip(*columns, strict=True))
        if not widths:
            rows = [tuple(schema.names), *rows]
            widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        sys.stdout.write("".join(_table_line(row, align, widths) for row in rows))
    if not widths:
        sys.stdout.write("  ".join(schema.names) + "\n")


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _table_line(row: Sequence[str], align: Sequence[str], widths: Sequence[int]) -> str:
    cells = zip(row, align, widths, strict=True)
    return "  ".join(f"{text:{side}{width}}" for text, side, width in cells).rstrip() + "\n"


def _table_cells(name: str, values: Iterable[Any]) -> list[str]:
    """Return the cells of a column; reasons are shown as `lrm status` shows them."""
    if name.lower() == "reason":
        values = (value and reason_title(value) for value in values)
    return list(map(_table_cell, values))


def _table_cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else _text(value)
    text = printable(text).replace("\n", r"\n")
    return text if len(text) <= _MAX_WIDTH else f"{text[: _MAX_WIDTH - 1]}…"


def _write_csv(schema: pa.Schema, blocks: Iterable[pa.Table]) -> None:
    """Write CSV with a header; lists and mappings are JSON."""
    # On a terminal, other people's names must not move the cursor.
    safe: Callable[[str], str] = printable if sys.stdout.isatty() else str
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(schema.names)
    for block in blocks:
        columns = [
            [safe(_text(value)) for value in block[name].to_pylist()] for name in schema.names
        ]
        lines.writerows(zip(*columns, strict=True))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _write_json(schema: pa.Schema, blocks: Iterable[pa.Table]) -> None:
    """Write an array with a line per object."""
    separator = "["
    for block in blocks:
        columns = [list(_json_values(name, block[name].to_pylist())) for name in schema.names]
        for row in zip(*columns, strict=True):
            sys.stdout.write(separator + json.dumps(dict(zip(schema.names, row, strict=True))))
            separator = ",\n"
    sys.stdout.write("[]\n" if separator == "[" else "]\n")


def _json_values(name: str, values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, float) and not math.isfinite(value):
            yield None  # JSON has no such number
        elif name in JSON_COLUMNS and value is not None:
            yield json.loads(value)
        elif isinstance(value, list) and value and isinstance(value[0], tuple):
            yield dict(value)
        else:
            yield value


def _write_parquet(schema: pa.Schema, blocks: Iterable[pa.Table]) -> None:
    if sys.stdout.isatty():
        raise BadInput("--format parquet: a terminal cannot show it; write it to a file: > FILE")
    with pq.ParquetWriter(sys.stdout.buffer, schema, compression="zstd") as file:
        for block in blocks:
            file.write_table(block)


FORMATS: Mapping[str, Callable[[pa.Schema, Iterable[pa.Table]], None]] = {
    "ids": _write_ids,
    "table": _write_table,
    "csv": _write_csv,
    "json": _write_json,
    "parquet": _write_parquet,
}
"""Functions that write rows to standard output, given the schema and tables of many rows."""
