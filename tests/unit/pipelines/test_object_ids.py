"""Files of asset ids, as `--from` reads them."""

import pytest

from core.errors import BadInput
from pipelines.maintenance.removal import read_ids


@pytest.mark.parametrize(
    ("line", "ids"),
    [
        ("objaverse:a\r\n", ["objaverse:a"]),
        ("\ufeffobjaverse:a", ["objaverse:a"]),
        ("objaverse:a  # asked by its author", ["objaverse:a"]),
        ("objaverse:a#b", ["objaverse:a"]),
        ("folder:pot #1", ["folder:pot #1"]),
        ("folder:pot#1\r\n", ["folder:pot#1"]),
        ("  # folder:pot", []),
        ("", []),
    ],
)
def test_a_line_gives_its_id(line, ids):
    assert read_ids(["x:y"], [line, line]) == ["x:y", *ids]


def test_a_file_with_an_invalid_id_is_refused():
    """The list of a takedown is used as a whole, or not at all."""
    with pytest.raises(BadInput, match="'a chair' is not an asset id"):
        read_ids([], ["objaverse:a", "a chair"])
