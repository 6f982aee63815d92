"""Columns of the log, of the last event of any stage, and of the listing.

Each other column is declared in the file of the stage or filter that writes it.
"""

from typing import Any

import pyarrow as pa

from dataset.columns import Column, category, flag, number, seconds_by_name, text, texts

__all__ = ["CLEARED", "EVENT_SCHEMA", "LIST", "LISTED", "REMOVE", "EventColumns", "ListColumns"]

EVENT_SCHEMA = pa.schema(
    [
        ("seq", pa.int64()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("run", pa.string()),
        ("asset_id", pa.string()),
        ("stage", pa.string()),
        ("rig", pa.string()),
        ("content", pa.string()),
        ("settings", pa.string()),
        ("status", pa.string()),
        ("kind", pa.string()),
        ("message", pa.string()),
        ("data", pa.string()),
        ("seconds", pa.float64()),
    ]
)
"""Columns of the table of events; fixed by the format of the dataset."""
CLEARED = "cleared"
"""Status of an event that withdraws the result of its stage."""
LISTED = frozenset({"ok", "failed"})
"""Statuses of the `list` event of an object that the source lists; `failed`: its annotation cannot
be used."""


class EventColumns:
    """Columns of the last event of a stage: its outcome."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.content = text(
            stage, "content", "version or SHA-256 of the file that the result was made from"
        )
        self.settings = category(
            stage, "settings", "digest of the settings and versions of the stage"
        )
        self.status = category(stage, "status", "`ok`, `failed`, `cleared` or `gone`")
        self.kind = category(stage, "kind", "failure kind, or the reason of a `cleared` event")
        self.message = category(stage, "message", "explanation in one line", detail=True)
        self.seconds = number(stage, "seconds", "seconds of work on one worker")
        self.limits = category(stage, "limits", "digest of the limits with which the stage failed")
        self.timings = seconds_by_name(stage, "timings", "seconds of each part of the work")

    @property
    def of_event(self) -> tuple[Column[Any], ...]:
        """Columns from the fields of an event other than its data."""
        return self.content, self.settings, self.status, self.kind, self.message, self.seconds

    @property
    def of_data(self) -> tuple[Column[Any], ...]:
        """Columns from the data of an event that any stage may have."""
        return self.limits, self.timings


class ListColumns(EventColumns):
    """Columns of the listing: the fields of `ObjectRecord`, and the part of the listing."""

    def __init__(self) -> None:
        super().__init__("list")
        stage = self.stage
        self.path = text(stage, "path", "path of the file below the source's root", detail=True)
        self.name = text(stage, "name", "name of the object", detail=True)
        self.licence = text(stage, "licence", "licence as the source spells it", detail=True)
        self.author = text(stage, "author", "author of the object", detail=True)
        self.tags = texts(stage, "tags", "tags of the object", detail=True)
        self.categories = texts(stage, "categories", "LVIS categories", detail=True)
        self.caption = text(stage, "caption", "caption, from Cap3D or your own CSV", detail=True)
        self.age_restricted = flag(
            stage, "age_restricted", "whether the source restricts the object to adults"
        )
        self.version = text(stage, "version", "version of the file, such as its ETag")
        self.part = category(stage, "part", "part of the source's listing that contains the object")

    @property
    def listed(self) -> tuple[Column[Any], ...]:
        """Columns of the data of a `list` event, in stored order."""
        return (
            self.path,
            self.name,
            self.licence,
            self.author,
            self.tags,
            self.categories,
            self.caption,
            self.age_restricted,
            self.version,
            self.part,
        )

    @property
    def of_snapshot(self) -> tuple[Column[Any], ...]:
        """Columns that describe the object; a snapshot contains them too."""
        return self.name, self.caption, self.licence, self.author, self.tags, self.categories


LIST = ListColumns()
"""Columns of the listing. Every object has a `list` event."""
REMOVE = EventColumns("remove")
"""Columns of takedowns: status `ok` = taken down, `cleared` = takedown withdrawn."""
