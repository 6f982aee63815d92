"""Rows of a source's tables that cannot be read: counted, reported with examples, and skipped.

Published tables have such rows: one of them must not stop a build of a million objects. A table of
which most rows cannot be read is something else than its name says, and is refused.
"""

from dataclasses import dataclass, field
from typing import Any

from core.errors import BadInput

__all__ = ["SkippedRows", "shown", "text_problem"]

_MAX_EXAMPLES = 3
_MAX_SHOWN = 80
"""Characters of a value that a message shows."""


@dataclass(kw_only=True)
class SkippedRows:
    """The rows of one table that were skipped."""

    table: str
    """The table's path or URI."""
    num_rows: int = 0
    """All rows of the table, those that were skipped included."""
    num_skipped: int = 0
    examples: list[str] = field(default_factory=list)
    """Place and reason of the first skipped rows."""

    def skip(self, place: str, reason: str) -> None:
        """Count a row that is skipped; `place` is its line or key."""
        self.num_skipped += 1
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(f"{place}: {reason}")

    def require_most_readable(self) -> None:
        """Raise BadInput if more than half of the rows were skipped."""
        if 2 * self.num_skipped > self.num_rows:
            text = f"{self.num_skipped:,} of {self.num_rows:,} rows cannot be read"
            raise BadInput(
                f"{self.table}: {text}, so this is not the expected table, or it is damaged: "
                f"{self.examples[0]}"
            )

    def warning(self) -> str:
        """Return one line that says how many rows were skipped, with the examples."""
        more = "; …" if self.num_skipped > len(self.examples) else ""
        count = f"{self.num_skipped:,} of {self.num_rows:,} rows skipped"
        return f"{self.table}: {count}: {'; '.join(self.examples)}{more}"

    def to_dict(self) -> dict[str, Any]:
        """Return the counts and examples as plain values for JSON."""
        return {
            "table": self.table,
            "rows": self.num_rows,
            "skipped": self.num_skipped,
            "examples": list(self.examples),
        }


def shown(value: object) -> str:
    """Return a value as a message shows it: quoted, escaped and cut; of a collection, its type."""
    if isinstance(value, list | dict):
        return f"a {type(value).__name__}"
    return ascii(value[:_MAX_SHOWN] if isinstance(value, str) else value)[: 2 * _MAX_SHOWN]


def text_problem(text: str) -> str:
    """Return why a text cannot be stored; empty if it can.

    Texts are decoded with `surrogateescape`, so bytes that are not UTF-8 are found here, too.
    """
    if "\0" in text:
        return "contains a NUL character"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "is not valid Unicode"
    return ""
