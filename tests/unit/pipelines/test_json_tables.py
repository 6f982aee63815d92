"""Compressed JSON tables with faults of single rows, and faults of the whole table."""

import gzip

import pytest

from pipelines.sources.json_tables import read_table

DEEP = 100_000


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        ('{"a": "\u00fc"}'.encode("utf-16"), {"a": "\u00fc"}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'{"a": "\xff", "b": "\\ud800"}', {"a": "\udcff", "b": "\ud800"}),
        (b'{"a": Infinity, "b": 1e999}', {"a": float("inf"), "b": float("inf")}),
    ],
    ids=["byte order mark", "UTF-16", "repeated key", "not Unicode", "infinite"],
)
def test_odd_values_are_kept_for_their_rows(text, values):
    assert read_table(gzip.compress(text)) == values


def test_members_of_gzip_are_joined():
    assert read_table(gzip.compress(b'{"a"') + gzip.compress(b": 1}")) == {"a": 1}


@pytest.mark.parametrize("value", ["[" * DEEP + "]" * DEEP, '{"x":' * DEEP + "1" + "}" * DEEP])
def test_deeply_nested_values_do_not_hide_others(value):
    text = f'{{"a": {value}, "b": "[[{{\\\\\\"{{", "c": [1, [2]]}}'
    table = read_table(gzip.compress(text.encode()))
    assert isinstance(table.pop("a"), list | dict)
    assert table == {"b": '[[{\\"{', "c": [1, [2]]}


def test_a_huge_number_does_not_hide_others():
    table = read_table(gzip.compress(b'{"a": ' + b"9" * 100_000 + b', "b": 2}'))
    assert isinstance(table["a"], float)
    assert table["b"] == 2


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "Expecting value"),
        (b"<!DOCTYPE html>", "Not a gzipped file"),
        (b"version https://git-lfs.github.com/spec/v1", "Not a gzipped file"),
        (gzip.compress(b'{"a": 1}', mtime=0)[:-3], "ended before"),
        (gzip.compress(b"", mtime=0), "Expecting value"),
        (gzip.compress(b'{"a": 1,}', mtime=0), "property name"),
        (gzip.compress(b"[]", mtime=0), "not a JSON object"),
        (gzip.compress(b"[" * DEEP, mtime=0), "Expecting"),
    ],
    ids=["empty", "page", "pointer", "cut", "nothing", "comma", "list", "open"],
)
def test_a_table_that_cannot_be_read_is_refused(data, problem):
    with pytest.raises(ValueError, match=problem):
        read_table(data)


@pytest.mark.parametrize("value", ["[]", "{}", '""', "1", '{"a":0}'])
def test_values_are_counted_before_they_take_memory(monkeypatch, value):
    monkeypatch.setattr("pipelines.sources.json_tables._MAX_VALUES", 1000)
    table = f'{{"a": [{",".join([value] * 200)}]}}'
    assert len(read_table(gzip.compress(table.encode()))["a"]) == 200
    table = f'{{"a": [{",".join([value] * 1000)}]}}'
    with pytest.raises(ValueError, match="more than 1,000 values"):
        read_table(gzip.compress(table.encode()))
    # Characters in texts do not count.
    table = '{"a": "' + '[,{:\\"' * 1000 + '"}'
    assert len(read_table(gzip.compress(table.encode()))["a"]) == 5000
