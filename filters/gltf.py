"""The part of a glTF 2.0 document that decides whether and how it is rendered.

Types are as strict as in Blender's importer: what validates here does not fail there for its JSON.
"""

from typing import Annotated, Any, TypeVar

import pydantic
from pydantic.alias_generators import to_camel

__all__ = ["Accessor", "Gltf", "Material", "Mesh", "Node", "Primitive", "Sparse", "TextureInfo"]

Index = Annotated[int, pydantic.Field(ge=0)]
_T = TypeVar("_T")
# One wrong item is enough to refuse a file, and a few bytes of JSON must not become gigabytes.
_Items = Annotated[list[_T], pydantic.Field(fail_fast=True, max_length=250_000)]


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(
        strict=True, frozen=True, extra="ignore", alias_generator=to_camel, allow_inf_nan=False
    )
    extensions: dict[str, dict[str, Any]] | None = None

    def extension(self, name: str) -> dict[str, Any] | None:
        """The value of an extension, None where it is absent."""
        return (self.extensions or {}).get(name)


class Asset(_Part):
    version: str


class _SparseView(_Part):
    buffer_view: Index
    byte_offset: Index | None = None
    component_type: int | None = None


class Sparse(_Part):
    """Replacements of single elements of an accessor."""

    count: Index
    indices: _SparseView
    values: _SparseView


class Accessor(_Part):
    """A typed array within a buffer view; zeros where it has none."""

    buffer_view: Index | None = None
    byte_offset: Index | None = None
    component_type: int
    count: Index
    type: str
    normalized: bool | None = None
    sparse: Sparse | None = None
    max: _Items[float] | None = None
    min: _Items[float] | None = None


class BufferView(_Part):
    buffer: Index
    byte_length: Index
    byte_offset: Index | None = None
    byte_stride: Index | None = None


class Buffer(_Part):
    byte_length: Index
    uri: str | None = None


class Image(_Part):
    uri: str | None = None
    buffer_view: Index | None = None
    mime_type: str | None = None


class Texture(_Part):
    source: Index | None = None
    sampler: Index | None = None


class TextureInfo(_Part):
    """A material's reference to a texture and to the UV set that it reads."""

    index: Index
    tex_coord: Index | None = None
    scale: float | None = None
    strength: float | None = None


class _MetallicRoughness(_Part):
    base_color_texture: TextureInfo | None = None
    metallic_roughness_texture: TextureInfo | None = None
    base_color_factor: list[float] | None = None
    metallic_factor: float | None = None
    roughness_factor: float | None = None


class Material(_Part):
    """How a primitive looks."""

    pbr_metallic_roughness: _MetallicRoughness | None = None
    normal_texture: TextureInfo | None = None
    occlusion_texture: TextureInfo | None = None
    emissive_texture: TextureInfo | None = None
    emissive_factor: list[float] | None = None
    alpha_mode: str | None = None
    alpha_cutoff: float | None = None
    double_sided: bool | None = None


class Primitive(_Part):
    """One draw call of a mesh."""

    attributes: dict[str, Index]
    indices: Index | None = None
    material: Index | None = None
    mode: Index | None = None
    targets: _Items[dict[str, Index]] | None = None


class Mesh(_Part):
    """A list of primitives."""

    primitives: _Items[Primitive]


class Node(_Part):
    """A place in the scene's tree."""

    children: _Items[Index] | None = None
    mesh: Index | None = None
    skin: Index | None = None
    matrix: _Items[float] | None = None
    translation: _Items[float] | None = None
    rotation: _Items[float] | None = None
    scale: _Items[float] | None = None


class Scene(_Part):
    nodes: _Items[Index] | None = None


class Gltf(_Part):
    """A whole document."""

    asset: Asset
    scene: Index | None = None
    scenes: _Items[Scene] | None = None
    nodes: _Items[Node] | None = None
    meshes: _Items[Mesh] | None = None
    accessors: _Items[Accessor] | None = None
    buffer_views: _Items[BufferView] | None = None
    buffers: _Items[Buffer] | None = None
    images: _Items[Image] | None = None
    textures: _Items[Texture] | None = None
    materials: _Items[Material] | None = None
    animations: _Items[dict[str, Any]] | None = None
    extensions_used: _Items[str] | None = None
    extensions_required: _Items[str] | None = None
