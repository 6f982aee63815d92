"""Small GLB files to inspect, built in memory."""

import functools
import io
import json
import struct
from typing import Any

import numpy as np
from PIL import Image

from tests.support.gltf_builder import GltfBuilder


def pack_glb(document: dict[str, Any] | bytes, binary: bytes | None = b"") -> bytes:
    """Return a GLB with this document and this BIN chunk; None omits the chunk."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    chunks = [(b"JSON", text + b" " * (-len(text) % 4))]
    if binary is not None:
        chunks.append((b"BIN\0", binary + b"\0" * (-len(binary) % 4)))
    body = b"".join(struct.pack("<I", len(data)) + kind + data for kind, data in chunks)
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def pack_scene(builder: GltfBuilder) -> bytes:
    """Return the GLB of a builder."""
    buffers = [{"byteLength": len(builder.binary)}]
    return pack_glb(builder.document | {"buffers": buffers}, builder.binary)


@functools.cache
def picture(kind: str = "PNG", size: tuple[int, int] = (8, 8), flat: bool = False) -> bytes:
    """Return an encoded image of noise, or of one colour if `flat`."""
    pixels = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(np.full_like(pixels, 90) if flat else pixels).save(out, kind)
    return out.getvalue()


def textured_square(image: bytes | None = None) -> tuple[dict[str, Any], bytes]:
    """Return the document and the binary chunk of a textured square of two triangles."""
    image = picture() if image is None else image
    positions = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype="<f4").tobytes()
    uvs = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], dtype="<f4").tobytes()
    indices = np.array([0, 1, 2, 0, 2, 3], dtype="<u2").tobytes()
    views, binary = [], b""
    for part in (positions, uvs, indices, image):
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(part)})
        binary += part + b"\0" * (-len(part) % 4)
    document = {
        "asset": {"version": "2.0", "generator": "tests"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"children": [1], "translation": [0.0, 1.0, 0.0]}, {"mesh": 0}],
        "meshes": [
            {
                "primitives": [
                    {
                        "attributes": {"POSITION": 0, "TEXCOORD_0": 1},
                        "indices": 2,
                        "material": 0,
                        "mode": 4,
                    }
                ]
            }
        ],
        "accessors": [
            {
                "bufferView": 0,
                "componentType": 5126,
                "count": 4,
                "type": "VEC3",
                "min": [0.0, 0.0, 0.0],
                "max": [1.0, 1.0, 0.0],
            },
            {"bufferView": 1, "componentType": 5126, "count": 4, "type": "VEC2"},
            {"bufferView": 2, "componentType": 5123, "count": 6, "type": "SCALAR"},
        ],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        "textures": [{"source": 0}],
        "images": [{"bufferView": 3, "mimeType": "image/png"}],
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    return document, binary


def changed_square(**replaced: Any) -> bytes:
    """Return the textured square as a file; `replaced` replaces top-level values."""
    document, binary = textured_square()
    return pack_glb(document | replaced, binary)


def square_with_extension(extension: str, **replaced: Any) -> bytes:
    """Return `changed_square(**replaced)`, which also uses and requires an extension."""
    names = {"extensionsUsed": [extension], "extensionsRequired": [extension]}
    return changed_square(**names, **replaced)


def skinned_square(**attributes: Any) -> GltfBuilder:
    """Return a skinned, textured square with a morph target and an instanced copy."""
    builder = GltfBuilder()
    material = builder.material(texture=builder.texture(np.full((4, 4, 3), 128)))
    builder.document["textures"][0]["sampler"] = builder.add("samplers", {"wrapS": 10497})
    mesh = builder.quad(material)
    primitive = builder.document["meshes"][mesh]["primitives"][0]
    primitive["attributes"] |= {
        "JOINTS_0": builder.accessor([[1, 0, 0, 0]] * 4, "|u1"),
        "WEIGHTS_0": builder.accessor([[1, 0, 0, 0]] * 4),
        **attributes,
    }
    primitive["targets"] = [{"POSITION": builder.accessor(np.ones((4, 3)))}]
    builder.document["meshes"][mesh]["weights"] = [0.5]
    matrices = builder.accessor(np.tile(np.eye(4).reshape(16), (2, 1)))
    joints = [builder.node(), builder.node()]
    skin = builder.add("skins", {"joints": joints, "inverseBindMatrices": matrices})
    builder.node(mesh=mesh, skin=skin)
    translations = {"TRANSLATION": builder.accessor(np.zeros((2, 3)))}
    builder.node(mesh=mesh, extensions={"EXT_mesh_gpu_instancing": {"attributes": translations}})
    return builder
