"""The CSV that describes the models of a folder."""

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from core.errors import BadInput
from pipelines.sources.csv_rows import CsvRow, csv_rows
from pipelines.sources.skipped_rows import SkippedRows, shown

__all__ = ["ObjectsTable", "read_objects_table"]

_COLUMNS = ("path", "caption", "tags", "licence", "author", "name")
_SPELLINGS = {"license": "licence"}
"""Other accepted spellings of columns."""


@dataclass(frozen=True, kw_only=True)
class ObjectsTable:
    """The rows of the CSV, by the paths of the models."""

    rows: Mapping[str, Mapping[str, str]]
    problems: Mapping[str, str]
    """For models whose row cannot be read: why."""
    skipped: SkippedRows


def read_objects_table(data: bytes, where: str, models: Collection[str]) -> ObjectsTable:
    """Return the rows of a CSV whose first line names its columns; of a repeated path, the last.

    A row that cannot be read is skipped, and if its path is one of `models`, it is the problem of
    that model. Raises BadInput if most rows cannot be read, or for other columns.
    """
    lines = csv_rows(io.BytesIO(data))
    columns = _columns(next(lines, None), where)
    position = columns.index("path")
    rows: dict[str, dict[str, str]] = {}
    problems: dict[str, str] = {}
    skipped = SkippedRows(table=where)
    for line, cells, problem in lines:
        skipped.num_rows += 1
        path = cells[position].removeprefix("./") if position < len(cells) else ""
        if not problem and len(cells) != len(columns):
            problem = f"expected {len(columns)} values, one per column, got {len(cells)}"
        rows.pop(path, None)
        problems.pop(path, None)
        if not problem:
            rows[path] = dict(zip(columns, cells, strict=True))
            continue
        skipped.skip(f"line {line}", problem)
        if path in models:
            problems[path] = f"{where} line {line}: {problem}"
    skipped.require_most_readable()
    return ObjectsTable(rows=rows, problems=problems, skipped=skipped)


def _columns(header: CsvRow | None, where: str) -> list[str]:
    """Return the names of the columns. Raises BadInput."""
    problem = "" if header is None else header.problem
    names = [] if header is None or problem else [cell.strip() for cell in header.cells]
    columns = [_SPELLINGS.get(name, name) for name in names]
    named = [name for name in columns if name]  # spreadsheets add empty columns
    if "path" not in named or not set(named) <= set(_COLUMNS) or len(set(named)) < len(named):
        raise BadInput(
            f"{where}: line 1 must name the columns: path and any of {', '.join(_COLUMNS[1:])}, "
            f"each once; it {problem or 'is ' + shown(','.join(names))}"
        )
    return columns
