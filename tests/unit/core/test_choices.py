"""The error for an unknown name: it lists those there are, the closest first."""

import pytest

from core.choices import choose, unknown_choice
from core.errors import BadInput

KNOWN = {"timeout": 1, "crash": 2, "time_limit": 3}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("tiem_limit", "did you mean 'time_limit'? there are: time_limit, timeout, crash"),
        ("x", "there are: timeout, crash, time_limit"),
    ],
)
def test_an_unknown_name_is_refused_with_those_there_are(name: str, hint: str):
    with pytest.raises(BadInput) as caught:
        choose("kind", name, KNOWN)
    assert str(caught.value) == f"kind {name!r} does not exist; {hint}"
    assert choose("kind", "crash", KNOWN) == 2


def test_the_names_that_occur_come_first_with_their_counts():
    error = unknown_choice("kind", "x", KNOWN, {"time_limit": 1200, "crash": 3})
    assert str(error).endswith("there are: time_limit (1,200), crash (3), timeout")
    assert str(unknown_choice("kind", "x", [])).endswith("there are: none")
