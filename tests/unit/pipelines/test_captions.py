"""Captions as Cap3D and spreadsheets write them."""

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadInput
from pipelines.sources.captions import Captions, read_captions
from pipelines.sources.csv_rows import csv_rows

A, B, C, D = "a" * 32, "b" * 64, "ysqP6VH2x99bODrQRbcYdQjSLjV", "d" * 32


@pytest.fixture
def read(tmp_path):
    def read_bytes(data: bytes | str, name: str = "captions.csv") -> Captions:
        path = Path(tmp_path / name)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return read_captions(str(path))

    return read_bytes


PLAIN = f'{A},a red chair\n{B},"a ""big"" house, old"\n{C},x\n'
TEXTS = {A: "a red chair", B: 'a "big" house, old', C: "x"}


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        "\ufeff" + PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.replace("\n", "\n\n"),
        "id,caption\n" + PLAIN,
        "\ufeffUID, Caption\r\n" + PLAIN,
        f"{A},an older caption\n" + PLAIN,
        PLAIN.replace(A, f" {A} "),
    ],
    ids="plain bom crlf cr empty header excel repeated spaces".split(),
)
def test_spellings_of_the_same_captions(read, data):
    captions = read(data)
    assert captions.texts == TEXTS
    assert captions.skipped.num_skipped == 0


def test_a_compressed_file_is_read(read):
    assert read(gzip.compress(PLAIN.encode()), "captions.csv.gz").texts == TEXTS
    with pytest.raises(BadInput, match="cannot read the captions: Compressed file ended"):
        read(gzip.compress(PLAIN.encode())[:-5], "captions.csv.gz")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"not an id,x", "'not an id' is not an id"),
        (b"../../etc/passwd,x", "'../../etc/passwd' is not an id"),
        (b"1.23E+31,x", "'1.23E+31' is not an id"),
        (b",x", "'' is not an id"),
        (b"\xc3\xa9,x", "'\\xe9' is not an id"),
        (D.encode(), "expected 2 columns (id,caption), got 1"),
        (D.encode() + b",a chair, red", "expected 2 columns (id,caption), got 3"),
        (D.encode() + b";a chair", "expected 2 columns (id,caption), got 1"),
        (D.encode() + b",caf\xe9", "is not valid Unicode"),
        (D.encode() + b",a\0b", "contains a NUL character"),
        (D.encode() + b',"a chair', "a quote is not closed"),
        (D.encode() + b',"a" chair', "a quote is not closed, or not doubled inside a quoted cell"),
        (D.encode() + b',"' + b"x" * (17 << 20), "a cell has more than 16777216 characters"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_an_odd_row_is_skipped_and_named(read, row, reason):
    captions = read(f"{A},a red chair\n".encode() + row + PLAIN[len(A) + 12 :].encode())
    assert captions.texts == TEXTS
    skipped = captions.skipped
    assert (skipped.num_rows, skipped.num_skipped) == (4, 1)
    assert skipped.examples[0].startswith(f"line 2: {reason}")


def test_a_quote_that_is_never_closed_costs_one_row(read):
    rows = [f"{number:032x},caption {number}" for number in range(50)]
    rows[7] = rows[7].replace(",", ',"')
    captions = read("\n".join(rows) + "\n")
    assert len(captions.texts) == 49
    assert captions.skipped.examples == [
        "line 8: a quote is not closed, or not doubled inside a quoted cell"
    ]
    # Another quote closes it, some rows later.
    rows[20] += '"'
    captions = read("\n".join(rows) + "\n")
    assert len(captions.texts) == 49
    assert captions.skipped.examples == ["line 8: a quote is not closed"]


def test_megabytes_and_line_breaks_in_a_cell_are_read(read):
    long = "word " * 500_000
    captions = read(f'{A},{long}\n{D},"two\nlines"\n')
    assert captions.texts == {A: long, D: "two\nlines"}


def test_a_table_of_other_rows_is_refused(read):
    half = PLAIN + "x y,1\n" * 3
    assert (
        read(half)
        .skipped.warning()
        .endswith(
            "captions.csv: 3 of 6 rows skipped: line 4: 'x y' is not an id; "
            "line 5: 'x y' is not an id; line 6: 'x y' is not an id"
        )
    )
    with pytest.raises(BadInput, match=r"4 of 7 rows cannot be read.*: line 4: 'x y' is not an id"):
        read(half + "x y,1\n")
    with pytest.raises(BadInput, match=r"cannot be read.*: line 1: contains a NUL character"):
        read(PLAIN.encode("utf-16"))
    with pytest.raises(BadInput, match=r"1 of 1 rows cannot be read.* got 1"):
        read("<html>")
    for empty in ("", "id,caption\n"):
        with pytest.raises(BadInput, match="has no caption"):
            read(empty)


def test_a_file_that_is_too_large_is_refused(read, monkeypatch):
    monkeypatch.setattr("pipelines.sources.captions._MAX_BYTES", 1 << 20)
    data = gzip.compress(b"0" * (1 << 24))
    with pytest.raises(BadInput, match="has more than 1 MiB of captions"):
        read(data, "captions.csv.gz")


CELLS = st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1)


@given(st.lists(CELLS.filter(any)), st.sampled_from(["\n", "\r\n", "\r"]))
def test_what_a_writer_wrote_is_read(rows, terminator):
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=terminator, quoting=csv.QUOTE_ALL).writerows(rows)
    read = list(csv_rows(io.BytesIO(file.getvalue().encode("utf-8-sig"))))
    assert [row.cells for row in read] == rows
    assert not any(row.problem for row in read)


@given(st.binary() | st.text(st.sampled_from('a",\r\n\0\\')).map(str.encode))
def test_any_bytes_give_rows_in_the_order_of_their_lines(data):
    rows = list(csv_rows(io.BytesIO(data)))
    lines = [row.line for row in rows]
    assert lines == sorted(set(lines))
    assert all(row.cells for row in rows)
    good = [row for row in rows if not row.problem]
    "".join(cell for row in good for cell in row.cells).encode()
