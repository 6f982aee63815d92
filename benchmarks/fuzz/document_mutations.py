"""Ways to spoil a GLB's document: any value in it, its tree, its arrays, its references."""

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
"""Texts of a document, and the JSON that replaces them: Python does not write it."""
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
    """A GLB taken apart, so that one part can be wrong and the others right."""

    document: dict[str, Any]
    binary: bytearray
    other: bytes
    """Another file."""
    lengths: dict[str, int] = field(default_factory=dict)
    """Lengths that the file (`glTF`) and its chunks (`JSON`, `BIN`) say instead of their own."""

    def items(self, name: str) -> list[dict[str, Any]]:
        """The objects in one of the document's lists; one that is not in it if there are none."""
        found = self.document.get(name)
        items = [item for item in found if isinstance(item, dict)] if type(found) is list else []
        return items if items else [{}]

    def span(self, item: dict[str, Any]) -> tuple[int, int]:
        """Where the buffer view of an accessor or image lies; the whole chunk if it has none."""
        views, index = self.items("bufferViews"), item.get("bufferView")
        view = views[index] if type(index) is int and 0 <= index < len(views) else {}
        start, length = view.get("byteOffset", 0), view.get("byteLength")
        if type(start) is not int or type(length) is not int:
            return 0, len(self.binary)
        start = min(max(start, 0), len(self.binary))
        return start, min(start + max(length, 0), len(self.binary))

    def pack(self) -> bytes:
        """The file."""
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
    """None if this is no GLB to begin with."""
    try:
        length, _ = _CHUNK.unpack_from(data, _HEADER.size)
        document = json.loads(data[20 : 20 + length])
    except (struct.error, ValueError, RecursionError):
        return None
    rest = data[20 + length :]
    binary = bytearray(rest[_CHUNK.size :])
    return Model(document, binary, other) if type(document) is dict else None


# Of any value in the document


def _places(
    model: Model, rng: Random, wanted: Callable[[Any, Any], bool]
) -> Iterator[tuple[Any, Any]]:
    """Random places, as container and key, whose key and value are `wanted`."""
    for _ in range(200):
        place: Any = model.document
        while type(place) in (dict, list) and place:
            key = rng.choice(list(place)) if type(place) is dict else rng.randrange(len(place))
            if wanted(key, place[key]) and rng.random() < 0.5:
                yield place, key
            place = place[key]
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
    """Drop a key or an item."""
    place, key = next(_places(model, rng, _anything))
    del place[key]
    return repr(key)


def duplicate(model: Model, rng: Random) -> str:
    """Repeat an item of a list."""
    place, key = next(_places(model, rng, _item))
    if type(place) is not list:
        return "nothing"
    times = rng.choice((1, 2, 500)) if len(json.dumps(place[key])) < 500 else 1
    place[key:key] = [place[key]] * times
    return f"item {key}, {times} times"


def retarget(model: Model, rng: Random) -> str:
    """Put a copy of one value in the place of another."""
    source, name = next(_places(model, rng, _anything))
    target, key = next(_places(model, rng, _anything))
    target[key] = copy.deepcopy(source[name])
    return f"{name!r} to {key!r}"


def number(model: Model, rng: Random) -> str:
    """Make a number huge, tiny, negative or none at all."""
    place, key = next(_places(model, rng, _number))
    place[key] = rng.choice(_INTEGERS if rng.random() < 0.5 else _FLOATS)
    return f"{key!r} becomes {place[key]!r}"


def wrong_type(model: Model, rng: Random) -> str:
    """Put a value of another type in the place of one."""
    place, key = next(_places(model, rng, _anything))
    place[key] = copy.deepcopy(rng.choice(_VALUES))
    return f"{key!r} becomes {place[key]!r:.40}"


def index(model: Model, rng: Random) -> str:
    """Make a reference point to something else, or to nothing."""
    place, key = next(_places(model, rng, _reference))
    place[key] = rng.choice((-1, 0, 1, 2, 5, rng.randrange(100), 10**6, 2**31, 0.0, True, "0"))
    return f"{key!r} becomes {place[key]!r}"


# Of what glTF's objects mean


def accessor(model: Model, rng: Random) -> str:
    """Lie about the counts, offsets and types of arrays."""
    name, fields = rng.choice((("accessors", _ARRAY_FIELDS), ("bufferViews", _VIEW_FIELDS)))
    items, key = model.items(name), rng.choice(list(fields))
    chosen = rng.sample(items, min(len(items), rng.choice((1, 1, 3, 1000))))
    for item in chosen:
        item[key] = rng.choice(fields[key])
    return f"{key} of {len(chosen)} {name}, the last {chosen[-1][key]!r}"


def sparse(model: Model, rng: Random) -> str:
    """Replace elements of an accessor by whatever other views hold."""
    view = {"bufferView": rng.randrange(4), "componentType": rng.choice((5121, 5123, 5125, 5126))}
    count = rng.choice((0, 1, 3, 10**7))
    rng.choice(model.items("accessors"))["sparse"] = {
        "count": count,
        "indices": view,
        "values": {"bufferView": rng.randrange(4)},
    }
    return f"{count} elements from view {view['bufferView']}"


def tree(model: Model, rng: Random) -> str:
    """Give nodes a second parent, themselves as children, or children that are not there."""
    nodes = model.items("nodes")
    child = rng.randrange(len(nodes) + 1)
    name, key = rng.choice((("nodes", "children"), ("scenes", "nodes"), ("skins", "joints")))
    item = rng.choice(model.items(name))
    found = item.get(key)
    item[key] = [*(found if type(found) is list else []), child]
    return f"{child} in {key} of {name}"


def roots(model: Model, rng: Random) -> str:
    """Make the first scene list nodes twice, or below each other, one of them hidden."""
    nodes = model.items("nodes")
    listed = rng.choices(range(len(nodes)), k=rng.choice((2, 10, 20_000)))
    nodes[listed[0]]["extensions"] = {"KHR_node_visibility": {"visible": False}}
    scene, *others = model.items("scenes") or [{}]
    found = scene.get("nodes")
    # A copy: another mutation may list the same scene hundreds of times.
    scene = scene | {"nodes": [*(found if type(found) is list else []), *listed]}
    model.document["scenes"] = [scene, *others]
    return f"{len(listed)} more, {listed[0]} hidden"


def joints(model: Model, rng: Random) -> str:
    """Make meshes share joints, weights and a skin, whichever indices and types they have."""
    place, count = rng.randrange(len(model.items("accessors"))), rng.choice((0, 1, 3, 50))
    attributes = {"JOINTS_0": place, "WEIGHTS_0": rng.choice((place, 0))}
    bones = rng.sample(range(len(model.items("nodes"))), min(count, len(model.items("nodes"))))
    model.document["skins"] = [{"joints": bones, "inverseBindMatrices": place}, {"joints": bones}]
    for mesh in model.items("meshes"):
        primitives = mesh.get("primitives")
        for part in primitives if type(primitives) is list else []:
            if type(part) is dict and type(part.get("attributes")) is dict:
                part["attributes"] |= attributes
    for node in model.items("nodes"):
        node["skin"] = rng.randrange(2)
    return f"{len(bones)} joints, accessor {place}"


def many_nodes(model: Model, rng: Random) -> str:
    """Append a long chain of nodes, or one mesh many times."""
    nodes = model.document.setdefault("nodes", [])
    if type(nodes) is not list:
        return "nothing"
    start, count, chained = len(nodes), rng.choice((50, 300, 1500)), rng.random() < 0.5
    for place in range(start + 1, start + count):
        # Copies in one place would hide each other from the light.
        beside = {"mesh": 0, "translation": [place % 30, place // 30, 0]}
        nodes.append({"children": [place]} if chained else beside)
    nodes.append({"mesh": 0})
    added = [start] if chained else list(range(start, start + count))
    for scene in model.items("scenes"):
        scene["nodes"] = added
    return f"{count} nodes, {'chained' if chained else 'side by side'}"


def transform(model: Model, rng: Random) -> str:
    """Put a node at infinity, or squash or explode it."""
    key = rng.choice(list(_TRANSFORMS))
    values: list[Any] = [rng.choice(_LARGE) for _ in range(_TRANSFORMS[key])]
    if rng.random() < 0.3:
        values[0] = rng.choice(_FLOATS)
    rng.choice(model.items("nodes"))[key] = values
    return f"{key} becomes {values}"


def extension(model: Model, rng: Random) -> str:
    """Make parts of the file use an extension with references to whatever is there."""
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
    """Make buffers or images refer to other files, devices, addresses."""
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
