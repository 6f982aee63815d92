"""The columns that the last event of any stage has, and those of a listed object.

Each column is declared here, or in the file of the stage or filter that makes it, and nowhere else.
"""

from typing import Any

from dataset.columns import Column, category, flag, number, seconds_by_name, text, texts

__all__ = ["CLEARED", "LIST", "REMOVE", "EventColumns", "ListColumns"]

CLEARED = "cleared"
"""The status of an event that takes back the result of its stage: there is none now."""


class EventColumns:
    """How the last event of a stage ended."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.content = text(stage, "content", "what of the object the result was made from")
        self.settings = category(stage, "settings", "digest of the settings it was made with")
        self.status = category(stage, "status", "`ok`, `failed`, `cleared` or `gone`")
        self.kind = category(stage, "kind", "kind of the failure, or reason of a `cleared`")
        self.message = category(stage, "message", "one line that explains it", detail=True)
        self.seconds = number(stage, "seconds", "seconds that a worker spent on it")
        self.limits = category(
            stage, "limits", "digest of the limits of the Blender child at a failure"
        )
        self.timings = seconds_by_name(stage, "timings", "seconds of the parts of the work")

    @property
    def of_event(self) -> tuple[Column[Any], ...]:
        """Columns that an event has beside its data."""
        return self.content, self.settings, self.status, self.kind, self.message, self.seconds

    @property
    def of_data(self) -> tuple[Column[Any], ...]:
        """Columns that are read from the data of an event of any stage."""
        return self.limits, self.timings


class ListColumns(EventColumns):
    """What a source lists of an object: the fields of `ObjectRecord`, and where it lists them."""

    def __init__(self) -> None:
        super().__init__("list")
        stage = self.stage
        self.path = text(stage, "path", "the file below the source's root", detail=True)
        self.name = text(stage, "name", "the object's name", detail=True)
        self.licence = text(stage, "licence", "the licence in the source's spelling", detail=True)
        self.author = text(stage, "author", "who made the object", detail=True)
        self.tags = texts(stage, "tags", "tags of the object", detail=True)
        self.categories = texts(stage, "categories", "categories of LVIS", detail=True)
        self.caption = text(stage, "caption", "the Cap3D caption", detail=True)
        self.age_restricted = flag(
            stage, "age_restricted", "whether the source restricts the object to adults"
        )
        self.version = text(stage, "version", "version of the file, such as its ETag")
        self.part = category(stage, "part", "part of the source's listing that names the object")

    @property
    def listed(self) -> tuple[Column[Any], ...]:
        """Columns of an event's data, in the order in which they are stored."""
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
    def words(self) -> tuple[Column[Any], ...]:
        """Columns that describe the object in words: those that a snapshot holds, too."""
        return self.name, self.caption, self.licence, self.author, self.tags, self.categories


LIST = ListColumns()
"""Columns of the listing, which every object has."""
REMOVE = EventColumns("remove")
"""Columns of takedowns: status `ok` = taken down, `cleared` = taken back."""
