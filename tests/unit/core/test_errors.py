"""The line that is shown for an error of a library."""

import pytest

from core.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("\n gone \nand more"), "gone "),
        (TimeoutError(), "TimeoutError"),
        (ValueError(" \n"), "ValueError"),
    ],
)
def test_the_first_line_is_never_empty(error, line):
    assert first_line(error) == line
