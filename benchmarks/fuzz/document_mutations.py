"""Mutations of a GLB's JSON document: any value, the node tree, arrays, references."""

import copy
import json
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

__all__ = ["ANY_VALUE", "MEANING", "Model", "take_apart"]

_HEADER = struct.Struct("<4sII")
_CHUNK = struct.Struct("<I4s")
_INTEGERS = (-1, 0, 1, 2**16, 2**31 - 1, 2**32, 2**63, 10**40)
_FLOATS = (math.nan, -math.inf, "1e999", 3.4e38, -1e300, 1e20, 1e-40, -1.0, 0.5, 2.0)
_LARGE = (0.0, 1e-30, 1e-9, 1.0, 1.0, -1.0, 1e5, 1e10, 1e20, 1e30, 3e38)
_TEXTS = ("", "VEC3", "x" * 3000, "\0", "\ud800", "{}", "%s", "../../secret", "deep")
_VALUES: tuple[Any, ...] = (*_TEXTS, None, True, 0, 0.5, [], {}, [[]], [None], {"index": 0})
_LITERALS = {'"1e999"': "1e999", '"deep"': "[" * 50_000 + "]" * 50_000}
"""Strings of a document that are replaced by JSON which Python's encoder cannot write."""
_URIS = (
    *("", "other.bin", "../../secret", "/dev/zero", "file:///dev/zero", "http://localhost/a"),
    *("data:;base64,AAAA", "data:image/png;base64,iVBORw0KGgo=", "data:,x", "%00", "\ud800"),
)
_INDEX_KEYS = frozenset(
    "mesh skin camera material indices index source sampler bufferView buffer scene node input "
    "output skeleton inverseBindMatrices texCoord POSITION NORMAL TEXCOORD_0 COLOR_0 JOINTS_0 "
    "WEIGHTS_0 TRANSLATION ROTATION SCALE".split()
)
_ARRAY_FIELDS: dict[str, tuple[Any, ...]] = {
    "count": (0, 1, 3, 4, 7, 65_536, 10**7, 2**31, 2**40),
    "byteOffset": (1, 2, 4, 12, 10**6, 2**31, 2**40),
    "componentType": (5120, 5121, 5122, 5123, 5125, 5126, 5124, 0),
    "type": ("SCALAR", "VEC2", "VEC3", "VEC4", "MAT4", "VEC5", ""),
    "normalized": (True, False),
    "bufferView": (None, 0, 1, 2),
}
_VIEW_FIELDS: dict[str, tuple[Any, ...]] = {
    "byteOffset": _ARRAY_FIELDS["byteOffset"],
    "byteLength": (0, 1, 4, 12, 2**31, 2**40),
    "byteStride": (0, 1, 2, 3, 4, 8, 252, 2**31, 2**62, 4 * 10**20),
}
_TRANSFORMS = {"translation": 3, "scale": 3, "rotation": 4, "matrix": 16}
_EXTENSIONS = (
    "KHR_draco_mesh_compression EXT_mesh_gpu_instancing KHR_texture_transform KHR_materials_unlit "
    "KHR_materials_pbrSpecularGlossiness KHR_materials_transmission KHR_lights_punctual "
    "EXT_texture_webp EXT_meshopt_compression KHR_materials_variants".split()
)


@dataclass
class Model:
    """The parts of a GLB file, so that one part can be damaged while the others stay valid."""

    document: dict[str, Any]
    binary: bytearray
    other: bytes
    """The bytes of another file."""
    lengths: dict[str, int] = field(default_factory=dict)
    """Wrong lengths for the headers of the file (`glTF`) and of its chunks (`JSON`, `BIN`)."""

    def items(self, name: str) -> list[dict[str, Any]]:
        """Return the JSON objects in one of the document's lists.

        If there are none, return one new object that is not part of the document.
        """
        value = self.document.get(name)
        items = [item for item in value if isinstance(item, dict)] if type(value) is list else []
        return items if items else [{}]

    def span(self, item: dict[str, Any]) -> tuple[int, int]:
        """Return start and end of an item's buffer view; the whole chunk if it has none."""
        views, index = self.items("bufferViews"), item.get("bufferView")
        view = views[index] if type(index) is int and 0 <= index < len(views) else {}
        start, length = view.get("byteOffset", 0), view.get("byteLength")
        if type(start) is not int or type(length) is not int:
            return 0, len(self.binary)
        start = min(max(start, 0), len(self.binary))
        return start, min(start + max(length, 0), len(self.binary))

    def pack(self) -> bytes:
        """Return the bytes of the file."""
        text = json.dumps(self.document)
        for short, literal in _LITERALS.items():
            text = text.replace(short, literal)
        body = b""
        for name, data in (("JSON", text.encode()), ("BIN", bytes(self.binary))):
            data += b" " * (-len(data) % 4)
            body += _CHUNK.pack(self.lengths.get(name, len(data)), name.ljust(4, "\0").encode())
            body += data
        return _HEADER.pack(b"glTF", 2, self.lengths.get("glTF", _HEADER.size + len(body))) + body


def take_apart(data: bytes, other: bytes) -> Model | None:
    """Split a GLB into its parts; return None if the file is not a valid GLB."""
    try:
        length, _ = _CHUNK.unpack_from(data, _HEADER.size)
        document = json.loads(data[20 : 20 + length])
    except (struct.error, ValueError, RecursionError):
        return None
    rest = data[20 + length :]
    binary = bytearray(rest[_CHUNK.size :])
    return Model(document, binary, other) if type(document) is dict else None


# Mutations of any value in the document


def _positions(
    model: Model, rng: Random, wanted: Callable[[Any, Any], bool]
) -> Iterator[tuple[Any, Any]]:
    """Yield random positions, as container and key, where `wanted(key, value)` is true."""
    for _ in range(200):
        container: Any = model.document
        while type(container) in (dict, list) and container:
            key = (
                rng.choice(list(container))
                if type(container) is dict
                else rng.randrange(len(container))
            )
            if wanted(key, container[key]) and rng.random() < 0.5:
                yield container, key
            container = container[key]
    model.document.setdefault("scene", 0)
    yield model.document, "scene"


def _anything(_key: Any, _value: Any) -> bool:
    return True


def _item(key: Any, _value: Any) -> bool:
    return type(key) is int


def _number(_key: Any, value: Any) -> bool:
    return type(value) in (int, float)


def _reference(key: Any, _value: Any) -> bool:
    return key in _INDEX_KEYS


def delete(model: Model, rng: Random) -> str:
    """Delete a key or an item."""
    container, key = next(_positions(model, rng, _anything))
    del container[key]
    return repr(key)


def duplicate(model: Model, rng: Random) -> str:
    """Repeat an item of a list."""
    container, key = next(_positions(model, rng, _item))
    if type(container) is not list:
        return "nothing"
    times = rng.choice((1, 2, 500)) if len(json.dumps(container[key])) < 500 else 1
    container[key:key] = [container[key]] * times
    return f"item {key}, {times} times"


def retarget(model: Model, rng: Random) -> str:
    """Replace a value by a copy of another value."""
    source, name = next(_positions(model, rng, _anything))
    target, key = next(_positions(model, rng, _anything))
    target[key] = copy.deepcopy(source[name])
    return f"{name!r} to {key!r}"


def number(model: Model, rng: Random) -> str:
    """Replace a number by a huge, tiny, negative or invalid one."""
    container, key = next(_positions(model, rng, _number))
    container[key] = rng.choice(_INTEGERS if rng.random() < 0.5 else _FLOATS)
    return f"{key!r} becomes {container[key]!r}"


def wrong_type(model: Model, rng: Random) -> str:
    """Replace a value by one of another type."""
    container, key = next(_positions(model, rng, _anything))
    container[key] = copy.deepcopy(rng.choice(_VALUES))
    return f"{key!r} becomes {container[key]!r:.40}"


def index(model: Model, rng: Random) -> str:
    """Replace an index by another one, which may be invalid."""
    container, key = next(_positions(model, rng, _reference))
    container[key] = rng.choice((-1, 0, 1, 2, 5, rng.randrange(100), 10**6, 2**31, 0.0, True, "0"))
    return f"{key!r} becomes {container[key]!r}"


# Mutations of glTF's objects


def accessor(model: Model, rng: Random) -> str:
    """State wrong counts, offsets or types of arrays."""
    name, fields = rng.choice((("accessors", _ARRAY_FIELDS), ("bufferViews", _VIEW_FIELDS)))
    items, key = model.items(name), rng.choice(list(fields))
    chosen = rng.sample(items, min(len(items), rng.choice((1, 1, 3, 1000))))
    for item in chosen:
        item[key] = rng.choice(fields[key])
    return f"{key} of {len(chosen)} {name}, the last {chosen[-1][key]!r}"


def sparse(model: Model, rng: Random) -> str:
    """Replace elements of an accessor by values from other buffer views."""
    view = {"bufferView": rng.randrange(4), "componentType": rng.choice((5121, 5123, 5125, 5126))}
    count = rng.choice((0, 1, 3, 10**7))
    rng.choice(model.items("accessors"))["sparse"] = {
        "count": count,
        "indices": view,
        "values": {"bufferView": rng.randrange(4)},
    }
    return f"{count} elements from view {view['bufferView']}"


def tree(model: Model, rng: Random) -> str:
    """Give a node a second parent, itself as a child, or a child that does not exist."""
    nodes = model.items("nodes")
    child = rng.randrange(len(nodes) + 1)
    name, key = rng.choice((("nodes", "children"), ("scenes", "nodes"), ("skins", "joints")))
    item = rng.choice(model.items(name))
    children = item.get(key)
    item[key] = [*(children if type(children) is list else []), child]
    return f"{child} in {key} of {name}"


def roots(model: Model, rng: Random) -> str:
    """Add nodes to the first scene: repeated ones, descendants of others, and a hidden one."""
    nodes = model.items("nodes")
    listed = rng.choices(range(len(nodes)), k=rng.choice((2, 10, 20_000)))
    nodes[listed[0]]["extensions"] = {"KHR_node_visibility": {"visible": False}}
    scene, *others = model.items("scenes") or [{}]
    scene_nodes = scene.get("nodes")
    # A copy: another mutation may list the same scene hundreds of times.
    scene = scene | {"nodes": [*(scene_nodes if type(scene_nodes) is list else []), *listed]}
    model.document["scenes"] = [scene, *others]
    return f"{len(listed)} more, {listed[0]} hidden"


def joints(model: Model, rng: Random) -> str:
    """Give all meshes the same joints, weights and skin, with any indices and types."""
    accessor_index, count = rng.randrange(len(model.items("accessors"))), rng.choice((0, 1, 3, 50))
    attributes = {"JOINTS_0": accessor_index, "WEIGHTS_0": rng.choice((accessor_index, 0))}
    bones = rng.sample(range(len(model.items("nodes"))), min(count, len(model.items("nodes"))))
    model.document["skins"] = [
        {"joints": bones, "inverseBindMatrices": accessor_index},
        {"joints": bones},
    ]
    for mesh in model.items("meshes"):
        primitives = mesh.get("primitives")
        for part in primitives if type(primitives) is list else []:
            if type(part) is dict and type(part.get("attributes")) is dict:
                part["attributes"] |= attributes
    for node in model.items("nodes"):
        node["skin"] = rng.randrange(2)
    return f"{len(bones)} joints, accessor {accessor_index}"


def many_nodes(model: Model, rng: Random) -> str:
    """Append a long chain of nodes, or one mesh many times."""
    nodes = model.document.setdefault("nodes", [])
    if type(nodes) is not list:
        return "nothing"
    start, count, chained = len(nodes), rng.choice((50, 300, 1500)), rng.random() < 0.5
    for node in range(start + 1, start + count):
        # Copies at the same position would block each other's light.
        copy_of_mesh = {"mesh": 0, "translation": [node % 30, node // 30, 0]}
        nodes.append({"children": [node]} if chained else copy_of_mesh)
    nodes.append({"mesh": 0})
    added = [start] if chained else list(range(start, start + count))
    for scene in model.items("scenes"):
        scene["nodes"] = added
    return f"{count} nodes, {'chained' if chained else 'side by side'}"


def transform(model: Model, rng: Random) -> str:
    """Move a node to infinity, or scale it to almost nothing or to a huge size."""
    key = rng.choice(list(_TRANSFORMS))
    values: list[Any] = [rng.choice(_LARGE) for _ in range(_TRANSFORMS[key])]
    if rng.random() < 0.3:
        values[0] = rng.choice(_FLOATS)
    rng.choice(model.items("nodes"))[key] = values
    return f"{key} becomes {values}"


def extension(model: Model, rng: Random) -> str:
    """Add an extension with arbitrary references to parts of the document."""
    name, first, second = rng.choice(_EXTENSIONS), rng.randrange(6), rng.randrange(6)
    attributes = {"TRANSLATION": first, "ROTATION": second, "POSITION": first}
    value = {"attributes": attributes, "bufferView": first, "source": second, "light": first}
    value |= {"diffuseTexture": {"index": first}, "offset": [rng.choice(_LARGE), 0]}
    lists = [model.items(kind) for kind in ("nodes", "materials", "textures", "bufferViews")]
    for mesh in model.items("meshes"):
        primitives = mesh.get("primitives")
        lists.append(primitives if type(primitives) is list else [])
    for item in rng.choice(lists):
        if type(item) is dict and rng.random() < 0.5:
            item["extensions"] = {name: value}
    for key in ("extensionsUsed", "extensionsRequired")[: rng.choice((1, 2))]:
        model.document[key] = [name]
    return f"{name} {first} {second}"


def uri(model: Model, rng: Random) -> str:
    """Add URIs of other files, devices or servers to buffers or images."""
    name, text = rng.choice(("images", "buffers")), rng.choice(_URIS)
    for item in model.items(name)[: rng.choice((1, 100))]:
        item["uri"] = text
        item.pop("bufferView", None)
    return f"{text!r} in {name}"


ANY_VALUE: tuple[Callable[[Model, Random], str], ...] = (
    *(delete, duplicate, retarget, number, wrong_type, index),
)
MEANING: tuple[Callable[[Model, Random], str], ...] = (
    *(accessor, sparse, tree, roots, joints, many_nodes, transform, extension, uri),
)
