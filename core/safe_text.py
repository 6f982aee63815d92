"""Escaping of untrusted text before it is printed on a terminal."""

__all__ = ["printable"]


def printable(text: str) -> str:
    r"""Return the text with control, bidirectional and invisible characters escaped (`\x1b`).

    Names, captions and messages come from other people's files: an escape sequence in them could
    rewrite the screen, the terminal's title or the clipboard. Line breaks are kept.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )
