"""Rows of CSV files as programs and people write them, with the problem of each that is malformed.

A byte order mark, lines that end with CR, LF or both, and cells of megabytes are read. A quote that
is never closed costs its own row only.
"""

import csv
import io
import re
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import IO, NamedTuple

from pipelines.sources.skipped_rows import text_problem

__all__ = ["CsvRow", "csv_rows"]

_MAX_CELL = 16 << 20
"""Maximum characters of a cell; a longer one is a quote that was never closed."""
_MAX_LINE = 2 * _MAX_CELL
"""Characters of a line in memory; the rest of a longer one is read as lines of their own."""
_MAX_SHOWN_LINE = 1 << 16
"""Characters of a malformed row's first line that are split into cells."""


class CsvRow(NamedTuple):
    """One row of a CSV file that is not empty."""

    line: int
    """The number of its first line, from 1."""
    cells: list[str]
    """Its cells; those of its first line up to a problem."""
    problem: str = ""
    """Why the row cannot be read; empty if it can."""


def csv_rows(file: IO[bytes], row_start: re.Pattern[str] | None = None) -> Iterator[CsvRow]:
    """Yield the rows of a CSV file in UTF-8 that are not empty.

    `row_start` matches the start of a row: where it matches inside a quoted cell of several lines,
    a closing quote is missing. After a malformed row, reading continues with its second line.
    """
    # The limit of the csv module is 128 KiB and can only be set for the process.
    csv.field_size_limit(_MAX_CELL)
    lines = _Lines(io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline=""))
    reader = csv.reader(lines, strict=True)
    while True:
        line = lines.start_record()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cells, problem = lines.give_back(), _explained(error)
        else:
            record = lines.record
            if len(record) > 1 and row_start and any(map(row_start.match, record[1:])):
                cells, problem = lines.give_back(), "a quote is not closed"
            else:
                problem = text_problem("".join(cells))
        if cells:
            yield CsvRow(line, cells, problem)


def _explained(error: csv.Error) -> str:
    text = str(error)
    if "field larger" in text:
        return f"a cell has more than {_MAX_CELL} characters, or a quote is not closed"
    return "a quote is not closed, or not doubled inside a quoted cell"


class _Lines:
    """The lines of a file, and those that the present record was read from."""

    def __init__(self, text: IO[str]) -> None:
        self._text = iter(partial(text.readline, _MAX_LINE), "")
        self._given_back: deque[str] = deque()
        self._num_lines = 0
        self.record: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._given_back.popleft() if self._given_back else next(self._text)
        self.record.append(line)
        return line

    def start_record(self) -> int:
        """Start the next record and return the number of its first line, from 1."""
        self._num_lines += len(self.record)
        self.record.clear()
        return self._num_lines + 1

    def give_back(self) -> list[str]:
        """Read all lines of the record but the first again. Returns the first line's cells."""
        self._given_back.extendleft(reversed(self.record[1:]))
        del self.record[1:]
        return next(csv.reader([self.record[0][:_MAX_SHOWN_LINE].rstrip("\r\n")]), [])
