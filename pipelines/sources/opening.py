"""The choice of a source's class by the source's name."""

from core.errors import BadInput
from core.storage import Storage
from pipelines.sources.folder import Folder
from pipelines.sources.mirror import Mirror
from pipelines.sources.objaverse import LVIS, OBJECT_PATHS
from pipelines.sources.source import Source
from pipelines.sources.stored_files import reading
from pipelines.transfers.fetch_config import FetchConfig

__all__ = ["is_hub", "open_source"]


def open_source(name: str, fetch: FetchConfig | None = None, captions: str | None = None) -> Source:
    """Open `objaverse`, `objaverse@REVISION`, or the folder or URI of a mirror or of GLB files.

    `captions` is the CSV that describes the files of a folder; a source in Objaverse's layout
    ignores it. Raises BadInput.
    """
    if is_hub(name):
        from pipelines.sources.hub import HuggingFaceObjaverse

        return HuggingFaceObjaverse.resolve(
            name.partition("@")[2] or "main", fetch or FetchConfig()
        )
    storage = Storage(name)
    with reading(name):
        if storage.exists(OBJECT_PATHS):
            return Mirror(name)
        if not storage.exists(""):
            raise BadInput(f"{name}: there is no such folder or bucket: check --source")
        if storage.exists(LVIS):
            text = f"is an Objaverse mirror without {OBJECT_PATHS}: download that file again"
            raise BadInput(f"{name}: {text}")
        folder = Folder(name, captions)
        if not folder.parts():
            text = f"is neither an Objaverse mirror (no {OBJECT_PATHS}) nor a folder of .glb files"
            raise BadInput(f"{name}: {text}")
    return folder


def is_hub(name: str) -> bool:
    """Return whether a source's name stands for Objaverse on the Hugging Face hub."""
    return name.partition("@")[0] == "objaverse"
