"""The ids of Objaverse's objects."""

import re

__all__ = ["is_objaverse_id"]

_matches = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII).fullmatch


def is_objaverse_id(text: str) -> bool:
    """Return whether a text may be the id of an object: 1 to 64 letters, digits, `-` or `_`.

    Most ids have 32 hexadecimal digits, some 27 letters and digits; those of Objaverse-XL are
    SHA-256 with 64 digits. An id becomes part of file names, so it holds nothing else.
    """
    return _matches(text) is not None
