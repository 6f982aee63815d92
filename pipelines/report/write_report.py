"""`lrm report` without its options: the HTML report about a dataset, written to a folder."""

from pathlib import Path
from typing import Any

from core.errors import cannot_write
from core.storage import Storage
from pipelines.report.gather import SampleSizes, gather
from pipelines.report.page import render_page
from pipelines.report.thumbnails import sheets, thumbnails

__all__ = ["write_report"]


def write_report(root: Storage, out: str, num_thumbnails: int, num_shards: int) -> dict[str, Any]:
    """Write `report.html`; return the values that `lrm report --json` prints.

    The report shows `num_thumbnails` dropped objects per reason (0: a few, without pictures) and
    samples of at most `num_shards` shards. Raises BadInput if the folder cannot be written,
    and WorkFailed if its disk is full.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(f"--out {out}: cannot create this folder", error) from None
    sizes = SampleSizes(shards=num_shards)
    if num_thumbnails:
        sizes = SampleSizes(shards=num_shards, per_reason=num_thumbnails)
    data = gather(root, sizes)
    pictures = sheets(root, data.kept)
    if num_thumbnails:
        # Removed objects are not rendered again: they may have been taken down.
        visible = {reason: some for reason, some in data.dropped.items() if reason != "removed"}
        pictures |= thumbnails(root, data.config, visible)
    page = render_page(data, pictures).encode(errors="replace")
    path = folder / "report.html"
    try:
        Storage(folder).write(path.name, page)
    except OSError as error:
        raise cannot_write(f"--out {out}: cannot write to this folder", error) from None
    num_pictures = sum(bool(picture.uri) for picture in pictures.values())
    return {"report": str(path), "bytes": len(page), "pictures": num_pictures}
