"""What users write for a snapshot: its id, the start of its id, a name, or `latest`."""

import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import BadInput
from core.storage import Storage
from dataset.snapshots.manifests import (
    UnreadableSnapshot,
    last_created_at,
    manifest_path,
    manifests,
    read_manifests,
)

__all__ = [
    "LATEST",
    "NOW",
    "check_name",
    "check_name_is_free",
    "names_of",
    "resolve",
    "warn_without_manifest",
]

_log = logging.getLogger(__name__)

LATEST = "latest"
"""The snapshot that the last `lrm snapshot` returned."""
NOW = "now"
"""The kept samples of the present, which `lrm diff` compares with a snapshot."""
_MIN_PREFIX = 4
"""Characters of an id that are enough, if no other id begins with them."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_ID = re.compile(r"[0-9a-f]{16}")


def resolve(root: Storage, text: str) -> str:
    """Return the id of the snapshot that a text refers to.

    The text is an id, `latest`, a name, or at least the first four characters of an id; the first
    of these that applies counts. Raises BadInput if there is no such snapshot, if several ids
    begin with the text, or if the answer depends on a manifest that cannot be read.
    """
    if _ID.fullmatch(text) and root.exists(manifest_path(text)):
        return text
    known, unreadable = read_manifests(root)
    if text == LATEST and known and not any(error.has_manifest for error in unreadable):
        warn_without_manifest(unreadable)
        return str(max(known, key=last_created_at)["snapshot"])
    for manifest in known:
        if text in names_of(manifest):
            return str(manifest["snapshot"])
    described = {manifest["snapshot"]: _described(manifest) for manifest in known}
    described |= {error.snapshot_id: f"{error.snapshot_id} (unreadable)" for error in unreadable}
    matches = [snapshot_id for snapshot_id in described if snapshot_id.startswith(text)]
    if len(text) >= _MIN_PREFIX and len(matches) == 1:
        return matches[0]
    if len(text) >= _MIN_PREFIX and matches:
        raise BadInput(
            f"{root.uri}: {text!r} is the start of several snapshots: "
            f"{', '.join(described[match] for match in matches)}; give more characters"
        )
    if unreadable:  # it may have this name, or be the latest one
        raise unreadable[0]
    raise BadInput(f"{root.uri}: no snapshot {text!r}; {_hint(root, text, known)}")


def warn_without_manifest(unreadable: Sequence[UnreadableSnapshot]) -> None:
    """Warn of snapshots that lack a manifest."""
    for error in unreadable:
        if not error.has_manifest:
            _log.warning("warning: %s", error)


def names_of(manifest: Mapping[str, Any]) -> list[str]:
    """Return the names of a snapshot; most have none."""
    return list(manifest.get("names", ()))


def check_name(name: str) -> None:
    """Raise BadInput if a snapshot cannot have this name."""
    if name.lower() in (LATEST, NOW):
        raise BadInput(f"--name {name}: this word has a meaning of its own; give another name")
    if _ID.fullmatch(name):
        raise BadInput(f"--name {name}: looks like the id of a snapshot; give another name")
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"--name {name!r}: a name has up to 64 letters, digits, dots, - and _, and begins with "
            "a letter or digit"
        )


def check_name_is_free(root: Storage, name: str, snapshot_id: str) -> None:
    """Raise BadInput if a name refers to another snapshot than this one: names never move."""
    for manifest in manifests(root):
        other = manifest["snapshot"]
        if other == snapshot_id:
            continue
        if name in names_of(manifest):
            raise BadInput(
                f"--name {name}: is the name of snapshot {other}, which has other samples; names "
                f"do not move: give another name, or delete that snapshot: lrm snapshot --root "
                f"{root.uri} --delete {name}"
            )
        if len(name) >= _MIN_PREFIX and other.startswith(name):
            raise BadInput(
                f"--name {name}: is the start of the id of snapshot {other}; give another name"
            )


def _described(manifest: Mapping[str, Any]) -> str:
    names = names_of(manifest)
    return f"{manifest['snapshot']} ({', '.join(names)})" if names else str(manifest["snapshot"])


def _hint(root: Storage, text: str, known: list[dict[str, Any]]) -> str:
    """Return what to do about a text that refers to no snapshot."""
    if not known:
        return f"create one: lrm snapshot --root {root.uri}"
    words = [word for item in known for word in (item["snapshot"], *names_of(item))]
    close = difflib.get_close_matches(text, words, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there are: {', '.join(map(_described, known))}"
