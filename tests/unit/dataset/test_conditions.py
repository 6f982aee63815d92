"""Conditions of `--where`: names of columns, SQL, and the errors for invalid ones."""

import pyarrow as pa
import pytest

from core.errors import BadInput
from dataset.conditions import parse_condition

TABLE = pa.table(
    {
        "asset_id": ["a", "b", "c"],
        "limit": ["1", "2", None],
        "list.licence": pa.array(["by", None, "cc0"]).dictionary_encode(),
        "list.tags": pa.array([["x"], [], None]),
        "fetch.sha256": ["s", "t", "u"],
        "fetch.bytes": [1, 2, 3],
        "render.bytes": [3, 2, 1],
        "measure.thickness": [0.1, 0.5, None],
        "measure.timings": pa.array(
            [[("import", 2.0)], None, []], pa.map_(pa.string(), pa.float64())
        ),
    }
)


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("measure.thickness > 0.3", [1]),
        ("thickness > 0 and MEASURE.Thickness < 0.3", [0]),
        ('"measure.thickness" IS NULL', [2]),
        ("licence = 'by' or list.licence = 'cc0'", [0, 2]),
        ("license = 'by' or list.license IS NULL -- both spellings", [0, 1]),
        ("list_contains(tags, 'x') and list.tags[1] = 'x'", [0]),
        ("len(list_filter(tags, lambda tag: tag = 'x')) = 1", [0]),
        ("timings['import'] > 1", [0]),
        ("fetch.bytes > 1 and render.bytes > 1", [1]),
        ("fetch.sha256 <> 'é fetch.' and limit = '1'", [0]),
        ("asset_id IN ('c', 'a')", [0, 2]),
        ("objects.licence = 'by' or Objects.measure.thickness > 0.3", [0, 1]),
        ("true", [0, 1, 2]),
        ("1 = 2", []),
    ],
)
def test_a_condition_selects_rows(condition: str, rows: list[int]):
    assert (
        parse_condition("--where", condition, TABLE.schema, "objects").rows(TABLE).tolist() == rows
    )


def test_a_condition_names_the_columns_that_it_reads():
    condition = parse_condition(
        "--where", "license = 'by' and fetch.bytes > 1", TABLE.schema, "objects"
    )
    assert set(condition.columns.values()) == {"list.licence", "fetch.bytes"}


@pytest.mark.parametrize(
    ("condition", "problem"),
    [
        ("lisence = 'by'", "column 'lisence' does not exist; did you mean 'list.licence'? there"),
        ("measure.nope = 1", "did you mean 'measure.thickness'? there are: measure.thickness, "),
        ("nope > 1", "column 'nope' does not exist; there are: asset_id, limit, list.licence"),
        ("bytes > 1", "several columns are called 'bytes': fetch.bytes, render.bytes"),
        ("licence = 5", "not a valid condition: Could not convert"),
        ("count(*) > 1", "not a valid condition: WHERE clause cannot contain aggregates"),
        ("thickness >", "not a valid condition: syntax error"),
        ("true); select (true", "not a valid condition"),
        ("true); drop table data; select (true", "not a valid condition: Only SELECT"),
        (" ", "the condition is empty"),
        ("sha256 IN (SELECT content FROM read_text('/etc/passwd'))", "Cannot access file"),
    ],
)
def test_an_invalid_condition_is_refused_in_one_line(condition: str, problem: str):
    with pytest.raises(BadInput) as caught:
        parse_condition("--where", condition, TABLE.schema, "objects").rows(TABLE)
    assert str(caught.value).startswith("--where")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
