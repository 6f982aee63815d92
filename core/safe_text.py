"""Strangers' text on a terminal: as itself, but for what would act instead of being shown."""

__all__ = ["printable"]


def printable(text: str) -> str:
    r"""The text with control, bidirectional and other invisible characters written out (`\x1b`).

    Names, captions and messages come from other people's files: an escape sequence in them could
    rewrite the screen, or what a terminal's title or clipboard holds. Line ends stay.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )
