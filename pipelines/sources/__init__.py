"""Sources of objects: the Hugging Face hub, mirrors of it, folders of GLB files."""

from pipelines.sources.opening import is_hub, open_source
from pipelines.sources.source import Source, SourceObject
from pipelines.transfers.outcome import Fetched, FetchFailed

__all__ = [
    "FetchFailed",
    "Fetched",
    "Source",
    "SourceObject",
    "is_hub",
    "open_source",
]
