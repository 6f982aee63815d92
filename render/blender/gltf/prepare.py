"""From a GLB to one that Blender imports quickly and in full, or the reason why there is none."""

from pathlib import Path

from render.blender.failure import SceneFailure
from render.blender.gltf.container import read_container
from render.blender.gltf.coordinates import settle_odd_numbers
from render.blender.gltf.document import Item, item, items
from render.blender.gltf.limits import check_size
from render.blender.gltf.materials import prepare_materials
from render.blender.gltf.nodes import keep_the_shown
from render.job import OpenRequest

__all__ = ["prepare"]

_SETTLED = frozenset(
    (
        "KHR_animation_pointer",
        "KHR_lights_punctual",
        "KHR_materials_variants",
        "KHR_node_visibility",
        "MSFT_lod",
    )
)
"""Extensions that are done with once the document is reduced to what is shown."""


def prepare(request: OpenRequest, folder: Path) -> Path:
    """Write a copy that holds what a still picture shows and no more. Raises SceneFailure."""
    container = read_container(Path(request.glb))
    document = container.document
    others = container.external_files()
    if others:
        named = ", ".join(repr(uri[:80]) for uri in others[:3])
        raise SceneFailure("refused", f"the file refers to {len(others)} other files: {named}")
    _settle_extensions(document)
    shown = keep_the_shown(document)
    check_size(container, shown, request.max_nodes, request.max_triangles)
    meshes = dict.fromkeys(node["mesh"] for node in shown)
    primitives = [
        part for mesh in meshes for part in items(item(document, "meshes", mesh), "primitives")
    ]
    settle_odd_numbers(container, primitives)
    prepare_materials(container, primitives, request.max_texture_pixels)
    copy = folder / "still.glb"
    container.write(copy)
    return copy


def _settle_extensions(document: Item) -> None:
    """List what is required as used, too, and nothing that is settled here."""
    lists = [document.get("extensionsUsed") or [], document.get("extensionsRequired") or []]
    for names in lists:
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SceneFailure("import_error", "the extensions are no list of names")
    used, required = [[name for name in names if name not in _SETTLED] for names in lists]
    document["extensionsUsed"] = used + [name for name in required if name not in used]
    document["extensionsRequired"] = required
