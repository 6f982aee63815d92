"""Asset ids as users give them: on the command line or in a file, with or without their source.

`UID` means `objaverse:UID` or `folder:UID`, whichever the dataset has. Ids of folders are paths,
which may contain any character, so an id is looked up before a `#` in it counts as a comment.
"""

import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import BadInput
from core.storage import Storage
from dataset.catalog.event_columns import LIST, LISTED
from dataset.catalog.latest import LatestEvents
from pipelines.building.object_table import latest_of

__all__ = ["GivenName", "id_line", "names_in_file", "names_of_words", "resolve_names"]

_LISTING = (LIST.stage, "")
_FOLDER = "folder:"
_MIN_PART = 4
"""Characters of an id from which on the ids that contain them are suggested."""
_MAX_SUGGESTED = 3


@dataclass(frozen=True, kw_only=True)
class GivenName:
    """A name of an object that a user gave."""

    text: str
    where: str = ""
    """The place in a file, for messages."""
    other_readings: tuple[str, ...] = ()
    """What the text means if no object has it as its id."""
    comment: bool = False
    """Whether the last reading leaves a comment out, which an id of a folder cannot have."""

    @property
    def readings(self) -> tuple[str, ...]:
        """The possible ids, with or without their source, in the order in which they are tried."""
        return (self.text, *self.other_readings)


def names_of_words(words: Iterable[str]) -> list[GivenName]:
    """Return the names that were given on the command line."""
    return [GivenName(text=word) for word in words]


def names_in_file(lines: Iterable[str], file: str) -> Iterator[GivenName]:
    """Yield the names in a file, one per line, as `id_line` writes them.

    Empty lines and those that start with `#` are comments. Raises BadInput for the header of a
    table, or for JSON.
    """
    first = True
    for number, line in enumerate(lines, 1):
        text = line.removeprefix("\ufeff").strip()
        if not text or text.startswith("#"):
            continue
        if first and (_is_header(text) or text[0] in "[{"):
            raise BadInput(
                f"{file}, line {number}: this is the beginning of a table or of JSON; give one id "
                "per line, as `lrm list` prints them without --columns and --format"
            )
        first = False
        yield _name_in_line(text, f"{file}, line {number}: ")


def id_line(asset_id: str) -> str:
    """Return the line of an id in a file: the id, or a JSON string if it would not fit a line."""
    plain = asset_id.isprintable() and asset_id == asset_id.strip()
    return asset_id if plain else json.dumps(asset_id)


def resolve_names(root: Storage, names: Iterable[GivenName], *, listed: bool) -> list[str]:
    """Return the asset ids of the objects with these names, in their order, without repeats.

    With `listed`, the source must still list them. Raises BadInput for a name that no object of the
    dataset has, or that objects of two sources have.
    """
    names = list(names)
    if not names:
        return []
    latest = latest_of(root)
    known = _KnownObjects(latest, {reading for name in names for reading in name.readings})
    found = [(name, known.find(name)) for name in names]
    unknown = [name for name, asset_id in found if asset_id is None]
    if unknown:
        raise _unknown(latest, unknown)
    ids = {asset_id: name for name, asset_id in found if asset_id is not None}
    for asset_id, name in ids.items():
        if listed and not known.is_listed(asset_id):
            raise BadInput(f"{name.where}{asset_id}: the source no longer lists this object")
    return list(ids)


class _KnownObjects:
    """The objects of a dataset whose id is one of some names, or ends with it."""

    def __init__(self, latest: LatestEvents, names: Iterable[str]) -> None:
        wanted = pa.array(sorted(filter(_is_unicode, names)), pa.string())
        asset_id = pc.field("asset_id")
        native = pc.replace_substring_regex(asset_id, pattern="^[^:]*:", replacement="")
        only = asset_id.isin(wanted) | native.isin(wanted)
        table = latest.tables([_LISTING], [LIST.status.name], only)[_LISTING]
        ids, statuses = (table[name].to_pylist() for name in ("asset_id", LIST.status.name))
        self._statuses = dict(zip(ids, statuses, strict=True))
        self._by_native: dict[str, list[str]] = defaultdict(list)
        for one in sorted(ids):
            self._by_native[one.partition(":")[2]].append(one)

    def find(self, name: GivenName) -> str | None:
        """Return the id of the object with this name, or None. Raises BadInput if two have it."""
        for reading in name.readings:
            found = [reading] if reading in self._statuses else self._by_native.get(reading, [])
            if name.comment and reading == name.readings[-1]:
                found = [asset_id for asset_id in found if not asset_id.startswith(_FOLDER)]
            if len(found) > 1:
                raise BadInput(
                    f"{name.where}{reading!r} is {' or '.join(found)}: give the whole id"
                )
            if found:
                return found[0]
        return None

    def is_listed(self, asset_id: str) -> bool:
        """Return whether the source still lists an object."""
        return self._statuses[asset_id] in LISTED


def _is_unicode(text: str) -> bool:
    return text.encode(errors="replace").decode() == text


def _is_header(text: str) -> bool:
    cells = re.split(r"[,;\t ]+", text)
    return ":" not in text and "asset_id" in (cell.strip('"') for cell in cells)


def _name_in_line(text: str, where: str) -> GivenName:
    readings = []
    if text.startswith('"'):
        with contextlib.suppress(ValueError):
            readings.append(str(json.loads(text)))
    before_comment = text.partition("#")[0].strip()
    comment = before_comment != text and not text.startswith(_FOLDER)
    if comment:
        readings.append(before_comment)
    return GivenName(text=text, where=where, other_readings=tuple(readings), comment=comment)


def _unknown(latest: LatestEvents, names: Sequence[GivenName]) -> BadInput:
    """Return the error for names that no object has; it suggests ids that contain the first."""
    name = names[0]
    more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    part, hint = name.readings[-1].rpartition(":")[2], ""
    if len(part) >= _MIN_PART and _is_unicode(part):
        only = pc.match_substring(pc.field("asset_id"), part, ignore_case=True)
        ids = latest.tables([_LISTING], [], only)[_LISTING]["asset_id"].to_pylist()
        suggested = sorted(ids)[:_MAX_SUGGESTED]
        hint = f"; did you mean {' or '.join(suggested)}?" if suggested else ""
    if ":" in name.text:
        return BadInput(f"{name.where}{name.text!r}{more}: not in this dataset{hint}")
    hint = hint or "; an asset id looks like objaverse:UID, or UID alone"
    return BadInput(f"{name.where}{name.text!r}{more}: not an asset id of this dataset{hint}")
