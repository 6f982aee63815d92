"""A source that is a folder or bucket in Objaverse's layout."""

from collections.abc import Mapping
from pathlib import Path

from core.storage import Storage
from glb.limits import GlbLimits
from pipelines.sources.json_tables import MAX_BYTES
from pipelines.sources.objaverse import ObjaverseSource
from pipelines.sources.stored_files import copy_glb, read_table_file, reading
from pipelines.transfers.outcome import FetchedFile

__all__ = ["Mirror"]


class Mirror(ObjaverseSource):
    """A mirror of Objaverse.

    A file's version is its size and modification time, or in an object store its ETag.
    """

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._storage = Storage(uri)
        self.is_local = self._storage.is_local

    def __reduce__(self) -> tuple[type["Mirror"], tuple[str]]:
        return Mirror, (self.name,)

    def read(self, path: str) -> bytes:
        """Return a whole annotation file. Raises FileNotFoundError, BadInput."""
        with reading(self.name):
            return read_table_file(self._storage, path, MAX_BYTES)

    def remedy(self, path: str) -> str:
        """Return what to do if an annotation file is damaged."""
        return "download it again"

    def annotation_versions(self) -> Mapping[str, str]:
        """Return the versions of the files in metadata/. Raises BadInput."""
        with reading(self.name):
            return self._storage.versions("metadata")

    def glb_versions(self, folder: str) -> Mapping[str, str]:
        """Return the versions of the files in a folder. Raises BadInput."""
        with reading(self.name):
            return self._storage.versions(f"glbs/{folder}")

    def fetch(
        self, path: str, version: str, target: Path, max_bytes: int = GlbLimits.max_file_bytes
    ) -> FetchedFile:
        """Copy the file to `target` atomically, if it has this version. Raises FetchFailed."""
        return copy_glb(self._storage, path, version, target, max_bytes)
