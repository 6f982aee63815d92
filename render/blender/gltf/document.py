"""Parts of a glTF document, which may hold anything where the specification wants something.

Every failure is a SceneFailure (`import_error`) that names the part. What Blender's importer checks
by itself is not checked here.
"""

from typing import Any

from render.blender.failure import SceneFailure

__all__ = ["Item", "extension", "index", "indices", "item", "items", "reference"]

Item = dict[str, Any]
"""A JSON object."""


def items(document: Item, group: str) -> list[Item]:
    """One of the document's lists, such as its nodes; an empty one if it is absent."""
    found = document.get(group)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(part, dict) for part in found):
        raise SceneFailure("import_error", f"{group} is no list of objects")
    return found


def item(document: Item, group: str, number: object) -> Item:
    """One part by its index, which the document gives, too."""
    found = document.get(group)
    if type(number) is not int or not isinstance(found, list) or not 0 <= number < len(found):
        raise SceneFailure("import_error", f"{group}: there is no {str(number)[:40]}")
    if not isinstance(found[number], dict):
        raise SceneFailure("import_error", f"{group}: {number} is no object")
    return found[number]


def index(part: Item, name: str) -> int | None:
    """An index that a part refers to, such as a node's mesh; None if it is absent."""
    found = part.get(name)
    if found is not None and type(found) is not int:
        raise SceneFailure("import_error", f"{name} is no index")
    return found


def indices(part: Item, name: str) -> list[int]:
    """A list of indices, such as a node's children; an empty one if it is absent."""
    found = part.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(type(number) is int for number in found):
        raise SceneFailure("import_error", f"{name} is no list of indices")
    return found


def reference(part: Item, name: str) -> Item | None:
    """An object within an object, None if it is absent."""
    found = part.get(name)
    if found is not None and not isinstance(found, dict):
        raise SceneFailure("import_error", f"{name} is no object")
    return found


def extension(part: Item, name: str) -> Item | None:
    """What an extension says of a part, None if it says nothing."""
    found = reference(part, "extensions")
    return None if found is None else reference(found, name)
