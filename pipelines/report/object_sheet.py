"""The contact sheet of an object, from its sample in a shard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.storage import Storage
from dataset.format.shards import read_index, read_members
from dataset.views import decode_views
from render.contact_sheet import contact_sheet

__all__ = ["write_sheet"]


def write_sheet(root: Storage, inspected: Mapping[str, Any], path: str) -> None:
    """Write the contact sheet of an object, given the result of `lrm inspect`.

    Raises BadInput if the object has no views or the file cannot be written.
    """
    if not inspected["samples"]:
        raise BadInput(
            f"{inspected['asset_id']}: its state is {inspected['state']}, so it has no views to "
            "show with --sheet"
        )
    sample = inspected["samples"][0]
    entries, _ = read_index(root, sample["shard"])
    entry = next(entry for entry in entries if entry.key == sample["key"])
    views, _ = decode_views(read_members(root, sample["shard"], entry, entry.members))
    title = f"{inspected['asset_id']}  {inspected['record']['name']}"
    try:
        contact_sheet(views, title=title).save(Path(path))
    except (OSError, ValueError) as error:
        raise BadInput(f"--sheet {path}: cannot write the picture: {error}") from None
