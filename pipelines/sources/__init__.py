"""Where objects come from: the hub, mirrors of it, folders of models."""

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
