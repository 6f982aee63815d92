"""Untrusted text: control characters are escaped, and readable text is unchanged."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from core.safe_text import printable


@given(st.text())
def test_no_control_character_remains(text):
    shown = printable(text)
    assert all(char == "\n" or unicodedata.category(char)[0] != "C" for char in shown)
    assert shown.count("\n") == text.count("\n")


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"])))
def test_readable_text_is_unchanged(text):
    assert printable(text) == text


def test_examples_of_escaped_text():
    assert printable("a\x1b]0;title\x07b\u202ec\rd") == r"a\x1b]0;title\x07b\u202ec\rd"
    assert printable("Käse 模型 🧀") == "Käse 模型 🧀"
