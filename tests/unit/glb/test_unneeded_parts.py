"""What a picture of the default scene does not need never fails a file, whatever it contains."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from filters.inspect_glb import inspect_glb
from glb.glb_error import GlbError
from glb.limits import GlbLimits
from glb.parse import Glb, read_glb
from tests.support.compressed_views import compress_views
from tests.support.small_glbs import pack_glb, picture, skinned_square, textured_square

SQUARE, BINARY = textured_square()
JUNK: list[Any] = [5, "a", -1, 1.5, True, [], [None], {}, {"a": 1}, [[1]], [{}], "http://a/b"]
HIDDEN = {"KHR_node_visibility": {"visible": False}}
Document = dict[str, Any]
Edit = Callable[[Document, Any], None]


def read(document: Document, binary: bytes = BINARY) -> Glb:
    return read_glb(pack_glb(document, binary), GlbLimits())


def add(group: str) -> Edit:
    """Return an edit that appends an item that nothing uses."""
    return lambda document, junk: document.setdefault(group, []).append(junk)


def put(group: str, name: str, index: int = 0) -> Edit:
    return lambda document, junk: document[group][index].update({name: junk})


def put_into_primitive(name: str) -> Edit:
    return lambda document, junk: document["meshes"][0]["primitives"][0].update({name: junk})


def put_attribute(name: str) -> Edit:
    def edit(document: Document, junk: Any) -> None:
        document["meshes"][0]["primitives"][0]["attributes"][name] = junk

    return edit


def top(name: str) -> Edit:
    return lambda document, junk: document.update({name: junk})


def nested(group: str, *fields: str) -> Edit:
    """Return an edit that appends an item with junk in all of these fields."""
    return lambda document, junk: document.setdefault(group, []).append(dict.fromkeys(fields, junk))


def hidden_node(document: Document, junk: Any) -> None:
    add_hidden(document, {"mesh": junk, "children": junk, "matrix": junk, "extensions": HIDDEN})


def below_a_hidden_node(document: Document, junk: Any) -> None:
    document["nodes"].append({"mesh": junk, "children": junk})
    add_hidden(document, {"children": [len(document["nodes"]) - 1], "extensions": HIDDEN})


def hidden_mesh(document: Document, junk: Any) -> None:
    parts = [{"attributes": {"POSITION": junk, "NORMAL": junk}, "indices": junk, "mode": 4}]
    document["meshes"].append({"primitives": parts, "weights": junk})
    add_hidden(document, {"mesh": len(document["meshes"]) - 1, "extensions": HIDDEN})


def hidden_material(document: Document, junk: Any) -> None:
    broken = {"pbrMetallicRoughness": junk, "extensions": {"KHR_materials_ior": junk}}
    add_hidden_material(document, broken)


def hidden_texture(document: Document, junk: Any) -> None:
    document["textures"].append({"source": junk, "extensions": {"MSFT_texture_dds": junk}})
    slot = {"baseColorTexture": {"index": len(document["textures"]) - 1}}
    add_hidden_material(document, {"pbrMetallicRoughness": slot})


def hidden_image(document: Document, junk: Any) -> None:
    document["images"].append({"uri": junk, "bufferView": None})
    document["textures"].append({"source": len(document["images"]) - 1})
    slot = {"baseColorTexture": {"index": len(document["textures"]) - 1}}
    add_hidden_material(document, {"pbrMetallicRoughness": slot})


def add_hidden_material(document: Document, material: Any) -> None:
    document["materials"].append(material)
    part = document["meshes"][0]["primitives"][0]
    parts = [part | {"material": len(document["materials"]) - 1}]
    document["meshes"].append({"primitives": parts})
    add_hidden(document, {"mesh": len(document["meshes"]) - 1, "extensions": HIDDEN})


def add_hidden(document: Document, node: Document) -> None:
    document["nodes"].append(node)
    document["nodes"][0]["children"].append(len(document["nodes"]) - 1)


def points_and_lines(document: Document, junk: Any) -> None:
    for mode in range(4):
        part = {"attributes": {"POSITION": junk, "X": junk}, "mode": mode}
        document["meshes"][0]["primitives"].append(part)


def node_outside_the_scene(document: Document, junk: Any) -> None:
    document["nodes"].append({"mesh": junk, "children": [0, 1], "rotation": junk, "skin": 99})


GROUPS = (
    "accessors animations buffers bufferViews cameras images materials meshes nodes samplers "
    "scenes skins textures"
).split()
UNNEEDED: dict[str, Edit] = (
    {f"an unused item of {group}": add(group) for group in GROUPS}
    | {
        f"fields of an unused item of {group}": nested(group, *fields.split())
        for group, fields in {
            "accessors": "bufferView componentType count type sparse",
            "buffers": "byteLength uri",
            "bufferViews": "buffer byteLength byteStride",
            "images": "uri bufferView",
            "materials": "pbrMetallicRoughness emissiveTexture",
            "meshes": "primitives weights",
            "samplers": "wrapS",
            "skins": "joints inverseBindMatrices",
            "textures": "source sampler",
        }.items()
    }
    | {f"{name} at the top": top(name) for name in ("animations", "cameras", "skins", "extras")}
    | {f"extensions that are used, as {name}": top("extensionsUsed") for name in ("junk",)}
    | {
        f"{name} of a used item of {group}": put(group, name)
        for group, names in {
            "accessors": "min max name extras",
            "buffers": "name extras",
            "bufferViews": "name target extras",
            "images": "name extras",
            "materials": "name extras",
            "meshes": "name extras weights",
            "nodes": "name extras camera weights",
            "scenes": "name extras extensions",
            "textures": "name extras",
        }.items()
        for name in names.split()
    }
    | {
        "extras of a primitive": put_into_primitive("extras"),
        "an attribute of an application": put_attribute("_ID"),
        "tangents": put_attribute("TANGENT"),
        "a second set of colours": put_attribute("COLOR_1"),
        "texture coordinates that no texture uses": put_attribute("TEXCOORD_3"),
        "joints of a mesh without a skin": put_attribute("JOINTS_0"),
        "a hidden node": hidden_node,
        "a node below a hidden one": below_a_hidden_node,
        "a mesh of a hidden node": hidden_mesh,
        "a material of a hidden node": hidden_material,
        "a texture of a hidden node": hidden_texture,
        "an image of a hidden node": hidden_image,
        "points and lines": points_and_lines,
        "a node outside the scene": node_outside_the_scene,
    }
)


@pytest.mark.parametrize("edit", UNNEEDED.values(), ids=UNNEEDED)
def test_unneeded_parts_may_be_anything(edit: Edit) -> None:
    """The picture stays the same, and what is left of the document is small and valid."""
    expected = read(SQUARE)
    for junk in JUNK:
        document = copy.deepcopy(SQUARE)
        edit(document, junk)
        glb = read(document)
        shown = [glb.document.item("nodes", index).get("mesh") for index in glb.tree.shown]
        assert shown == [None, 0]
        items = [item for group in ("images", "buffers") for item in glb.document.json[group]]
        assert not {"uri"} & set().union(*items)
        maps = inspect_glb(pack_glb(document, BINARY)).base_colour_maps
        assert (0, "core", "detailed") in {(item.image, item.source, item.state) for item in maps}
        for group in ("accessors", "bufferViews", "materials", "textures", "images"):
            kept = glb.document.json[group][: len(SQUARE[group])]
            assert strip(kept) == strip(expected.document.json[group]), group


def strip(items: list[Document]) -> list[Document]:
    """Return items without their names, which are kept if they are valid."""
    return [{key: value for key, value in item.items() if key != "name"} for item in items]


def test_needed_parts_are_still_checked() -> None:
    """The same junk where the picture needs it is malformed, or an external reference."""
    needed = [
        put("accessors", "count"),
        put("accessors", "type"),
        put("bufferViews", "byteLength"),
        put("meshes", "primitives"),
        put("nodes", "children"),
        put("nodes", "rotation"),
        put("textures", "source"),
        put("images", "bufferView"),
        put_attribute("POSITION"),
        put_attribute("TEXCOORD_0"),
        put_into_primitive("indices"),
        put_into_primitive("material"),
    ]
    for edit in needed:
        for junk in (5000, "a", -1, 1.5, [None], {"a": 1}):
            document = copy.deepcopy(SQUARE)
            edit(document, junk)
            with pytest.raises(GlbError) as caught:
                read(document)
            assert caught.value.kind in {"malformed", "empty"}


def test_a_file_that_nothing_needs_is_no_external_reference() -> None:
    document = copy.deepcopy(SQUARE)
    document["images"].append({"uri": "https://example.com/a.png"})
    document["buffers"].append({"byteLength": 4, "uri": "other.bin"})
    assert read(document).document.json["images"][1] == {}
    document["textures"][0]["source"] = 1
    with pytest.raises(
        GlbError, match=r"needs 2 other files: 'other.bin', 'https://example"
    ) as caught:
        read(document)
    assert caught.value.kind == "external_reference"


def test_an_image_beside_an_external_one_is_shown() -> None:
    """The file names a picture elsewhere, and has the same picture as WebP."""
    document, binary = textured_square(picture("WEBP"))
    document["images"].append({"uri": "wood.png"})
    webp = {"EXT_texture_webp": {"source": 0}}
    document["textures"] = [{"source": 1, "extensions": webp}]
    (shown,) = inspect_glb(pack_glb(document, binary)).base_colour_maps
    assert (shown.image, shown.source, shown.state) == (0, "EXT_texture_webp", "detailed")
    assert read(document, binary).document.json["images"][1] == {}


def test_compressed_views_need_no_external_plain_bytes() -> None:
    document, binary = compress_views(SQUARE, BINARY)
    document["buffers"][1]["uri"] = "square.fallback.bin"
    assert inspect_glb(pack_glb(document, binary)).num_triangles == 2


def test_joints_outside_the_scene_keep_their_parents() -> None:
    builder = skinned_square()
    nodes = builder.document["nodes"]
    joints = builder.document["skins"][0]["joints"]
    builder.document["scenes"][0]["nodes"] = [2, 3]
    parent = builder.node(root=False, children=[joints[1], 99, 2], translation=[1, 2, 3], name=7)
    builder.node(root=False, children=[parent, "a"], scale=[2, 2, 2])
    builder.node(root=False, children="none", rotation="none")
    document = builder.document | {"buffers": [{"byteLength": len(builder.binary)}]}
    kept = read(document, builder.binary).document.json["nodes"]
    assert len(kept) == len(nodes)
    assert kept[parent] == {"children": [joints[1]], "translation": [1, 2, 3]}
    assert kept[parent + 1] == {"children": [parent], "scale": [2, 2, 2]}
    assert kept[parent + 2] == {}
    nodes[parent + 1]["scale"] = "large"
    with pytest.raises(GlbError, match="scale"):
        read(document, builder.binary)


def test_a_joint_in_a_cycle_is_malformed_only_if_the_skin_is_shown() -> None:
    builder = skinned_square()
    builder.document["scenes"][0]["nodes"] = [3]
    nodes = builder.document["nodes"]
    nodes[0]["children"], nodes[1]["children"] = [1], [0]
    document = builder.document | {"buffers": [{"byteLength": len(builder.binary)}]}
    assert len(read(document, builder.binary).drawn) == 1
    document["scenes"] = [{"nodes": [2]}]
    with pytest.raises(GlbError, match="cycle"):
        read(document, builder.binary)
