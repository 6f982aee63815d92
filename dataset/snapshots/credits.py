"""The CREDITS file of a snapshot: author, licence and source page of every object."""

import html
import re
from collections.abc import Iterable, Iterator, Mapping

from core.safe_text import printable
from dataset.object_record import split_asset_id

__all__ = ["Credit", "credit_lines"]

Credit = tuple[str, str, str | None, str | None]
"""Asset id, name, author, licence."""

_LICENCES: dict[str, tuple[str, str]] = {
    "cc0": ("CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
    **{
        code: (f"CC {code.upper()} 4.0", f"https://creativecommons.org/licenses/{code}/4.0/")
        for code in ("by", "by-sa", "by-nd", "by-nc", "by-nc-sa", "by-nc-nd")
    },
}
"""Title and URL of a licence by the code that Objaverse uses; these are Sketchfab's licences."""
_PAGES = {"objaverse": "https://sketchfab.com/3d-models/{}"}
_MARKDOWN = re.compile(r"([\\`*_\[\]()#!|~])")
_PLAIN_ID = re.compile(r"[\w.-]+", re.ASCII)


def credit_lines(
    snapshot_id: str, licences: Mapping[str, int], credits_: Iterable[Credit]
) -> Iterator[str]:
    """Yield the lines of a CREDITS file in Markdown: a table of licences, then one per object."""
    yield f"# Credits of snapshot {snapshot_id}\n\n"
    yield "| licence | objects |\n|---|---|\n"
    for code, count in sorted(licences.items(), key=lambda item: (-item[1], item[0])):
        yield f"| {_licence(code)} | {count} |\n"
    yield "\nThe objects were rendered: the pictures are adaptations of the works below.\n\n"
    for asset_id, name, author, licence in credits_:
        title = _link(_plain(name) or _plain(asset_id), _page(asset_id))
        attribution = f" by {_plain(author)}" if author else ""
        yield f"- {title}{attribution}, {_licence(licence or 'unknown')}\n"


def _licence(code: str) -> str:
    text, url = _LICENCES.get(code.casefold(), (_plain(code), ""))
    return _link(text, url)


def _page(asset_id: str) -> str:
    """Return the URL of an object at its source; empty if the source has no pages."""
    source, native = split_asset_id(asset_id)
    has_page = source in _PAGES and _PLAIN_ID.fullmatch(native)
    return _PAGES[source].format(native) if has_page else ""


def _link(text: str, url: str) -> str:
    return f"[{text}]({url})" if url else text


def _plain(text: str) -> str:
    """Escape untrusted text for Markdown and HTML, and join its lines."""
    line = printable(" ".join(text.split()))
    return _MARKDOWN.sub(r"\\\1", html.escape(line, quote=False))
