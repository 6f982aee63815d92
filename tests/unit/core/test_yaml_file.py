"""A text of YAML is read in proportion to its size, or refused in one line."""

from pathlib import Path

import pytest

from core.errors import BadInput
from core.paths.yaml_file import read_yaml

LAUGHS = "a0: &a0 [1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 10)
)
BOMBS = {
    "nested aliases": (LAUGHS, "aliases"),
    "nested merges": (MERGES, "aliases"),
    "a value that contains itself": ("a: &a [*a]", "aliases"),
    "deep lists": ("a: " + "[" * 500, "recursion"),
    "no date": ("a: 2026-13-01", "month"),
    "no truth": ("a: !!bool maybe", "maybe"),
    "no number": ("a: !!int ''", "range"),
    "many digits": ("a: " + "1" * 5000, "digits"),
    "many values": ("a: 1\n" * (1 << 18), "more than 1048576 characters"),
    "another encoding": (b"a: \xff", "utf-8"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    text, problem = BOMBS[name]
    path = tmp_path / "settings.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput) as caught:
        read_yaml(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert problem in message
    assert "\n" not in message
    assert len(message) < 300


def test_other_yaml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("a: {b: [1, x*y, 'R&D']}\nc: 2026-12-01\n")
    assert read_yaml(str(path))["a"] == {"b": [1, "x*y", "R&D"]}
