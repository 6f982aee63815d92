"""Conditions in SQL on the columns of a table, as `--where` takes them, and names of columns.

A column may be called by its whole name (`measure.thickness`), or by the part after the dot
(`thickness`) if no other column has it. DuckDB evaluates the condition, without access to files.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from core.choices import unknown_choice
from core.errors import BadInput

__all__ = ["ColumnNames", "Condition", "parse_condition"]

_SPELLINGS = {"license": "licence"}
"""Other spellings of words in the names of columns."""
_MANY = 4
"""Messages list columns that more stages have as one."""
_ROW = "#row"
"""Column with the row's number; SQL can use it only in double quotes."""


class ColumnNames:
    """The columns of a table, by all names that a user may give them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._exact = {name.lower(): name for name in names}
        self._short: dict[str, list[str]] = defaultdict(list)
        for name in names:
            self._short[name.lower().rpartition(".")[2]].append(name)

    def find(self, name: str) -> list[str]:
        """Return the columns that a name may mean: none, one, or several with the same ending."""
        lower = name.lower()
        for spelling, ours in _SPELLINGS.items():
            if lower not in self._exact and lower not in self._short:
                lower = lower.replace(spelling, ours)
        return [self._exact[lower]] if lower in self._exact else self._short.get(lower, [])

    def resolve(self, option: str, name: str) -> str:
        """Return the column that a name means. Raises BadInput for an unknown or unclear name."""
        found = self.find(name)
        if len(found) > 1:
            raise BadInput(f"{option}: several columns are called {name!r}: {', '.join(found)}")
        if not found:
            raise unknown_choice(f"{option}: column", name, self._summary())
        return found[0]

    def _summary(self) -> list[str]:
        """Return the names, with `STAGE` for columns that many stages have."""
        return list(
            dict.fromkeys(
                f"STAGE.{short}" if "." in name and len(self._short[short]) > _MANY else name
                for name in self._names
                if (short := name.lower().rpartition(".")[2])
            )
        )


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A valid condition in SQL."""

    option: str
    """The option that gave it, for messages."""
    text: str
    table: str
    """What it may call the table."""
    columns: Mapping[tuple[str, ...], str]
    """The columns that it reads, by the parts of the names that it calls them."""

    def rows(self, table: pa.Table) -> Int64[np.ndarray, "n"]:
        """Return the numbers of the rows that satisfy the condition, in ascending order.

        Raises BadInput if it cannot be evaluated on the values of the table.
        """
        rows, problem = _select(self, table)
        if problem:
            raise _invalid(self.option, self.text, problem)
        return rows


def parse_condition(option: str, text: str, schema: pa.Schema, table: str) -> Condition:
    """Return a condition on tables of this schema, which it may call `table`.

    Raises BadInput if it is invalid: for an unknown column, the message lists those there are.
    """
    if not text.strip():
        raise BadInput(f"{option}: the condition is empty")
    given = text
    text, tree = _parse(option, text, schema.names)
    names, unknown, columns = ColumnNames(schema.names), [], {}
    for parts in dict.fromkeys(_column_references(tree)):
        if len(parts) > 1 and parts[0].lower() == table:
            parts = parts[1:]
        if len(found := names.find(".".join(parts))) == 1:
            columns[parts] = found[0]
        else:
            unknown.append(".".join(parts))
    # A query of a table without rows finds all errors that do not depend on values.
    condition = Condition(option=option, text=text, table=table, columns=columns)
    _, problem = _select(condition, schema.empty_table())
    for name in unknown:
        if any(f'"{part}"' in problem for part in name.split(".")):
            if _quoted(name) in given:
                raise BadInput(
                    f"{option}: there is no column {_quoted(name)}, and text needs single quotes: "
                    f"'{name}'"
                )
            names.resolve(option, name)
    if problem:
        raise _invalid(option, text, problem)
    return condition


def _select(condition: Condition, table: pa.Table) -> tuple[Int64[np.ndarray, "n"], str]:
    """Return the rows that satisfy a condition, and why it cannot be evaluated, or nothing."""
    numbered = table.select(sorted(set(condition.columns.values())))
    numbered = numbered.append_column(_ROW, pa.array(np.arange(table.num_rows)))
    names = ", ".join([_quoted(_ROW), *_renamed(condition.columns)])
    query = f"""
        SELECT {_quoted(_ROW)} FROM (SELECT {names} FROM data) AS {_quoted(condition.table)}
        WHERE ({condition.text}\n)
    """  # noqa: S608 - the user's own data
    with duckdb.connect(config={"enable_external_access": "false"}) as connection:
        connection.register("data", numbered)
        try:
            rows = connection.sql(query).to_arrow_table()[_ROW].to_numpy()
        except duckdb.Error as error:
            line = str(error).splitlines()[0]
            return np.zeros(0, np.int64), (line.partition("Error: ")[2] or line).rstrip("!")
    return np.sort(rows), ""


def _parse(option: str, text: str, names: Sequence[str]) -> tuple[str, Any]:
    """Return a valid text, and its syntax tree.

    Words that SQL reserves (`fetch`, `limit`) are columns if the text is not valid otherwise.
    """
    problem = ""
    with duckdb.connect(config={"enable_external_access": "false"}) as connection:
        for candidate in (text, _quote_reserved(text, names)):
            query = f"SELECT 1 WHERE ({candidate}\n)"
            row = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchone()
            assert row is not None
            tree = json.loads(row[0])
            if not tree["error"] and len(tree["statements"]) == 1:
                return candidate, tree
            problem = tree.get("error_message", "it ends before its last `)`").rstrip("!")
    raise _invalid(option, text, problem)


def _quote_reserved(text: str, names: Sequence[str]) -> str:
    """Put the words of a text that are reserved and part of a column's name in double quotes."""
    words = {part for name in names for part in name.lower().split(".")}
    data, tokens = text.encode(), duckdb.tokenize(text)
    ends = [*(start for start, _ in tokens), len(data)]
    quoted = [data[: ends[0]]]
    for (start, kind), end in zip(tokens, ends[1:], strict=True):
        token = data[start:end]
        word = token.strip().decode()
        if kind == duckdb.token_type.keyword and word.lower() in words:
            token = token.replace(word.encode(), _quoted(word).encode(), 1)
        quoted.append(token)
    return b"".join(quoted).decode()


def _column_references(node: Any) -> Iterator[tuple[str, ...]]:
    """Yield the parts of the names of columns in a syntax tree."""
    if isinstance(node, dict):
        if node.get("class") == "COLUMN_REF":
            yield tuple(node["column_names"])
        for value in node.values():
            yield from _column_references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _column_references(value)


def _renamed(columns: Mapping[tuple[str, ...], str]) -> Iterator[str]:
    """Yield the expressions that give the columns their names in the condition.

    A name of two parts becomes a field of a struct, which SQL writes in the same way.
    """
    structs: dict[str, dict[str, str]] = defaultdict(dict)
    for parts, column in columns.items():
        *first, last = (part.lower() for part in parts)
        structs[".".join(first)][last] = column
    for name, column in structs.pop("", {}).items():
        yield f"{_quoted(column)} AS {_quoted(name)}"
    for name, fields in structs.items():
        packed = ", ".join(f"{_quoted(field)} := {_quoted(col)}" for field, col in fields.items())
        yield f"struct_pack({packed}) AS {_quoted(name)}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _invalid(option: str, text: str, problem: str) -> BadInput:
    return BadInput(f"{option} {text!r} is not a valid condition: {problem}")
