"""The glTF extensions that a file may require."""

__all__ = [
    "BASIS",
    "DRACO",
    "IMPORTABLE_EXTENSIONS",
    "INSTANCING",
    "MESHOPT",
    "REMOVED_EXTENSIONS",
    "WEBP",
]

DRACO = "KHR_draco_mesh_compression"
INSTANCING = "EXT_mesh_gpu_instancing"
MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")
WEBP = "EXT_texture_webp"
BASIS = "KHR_texture_basisu"

REMOVED_EXTENSIONS = frozenset(
    {
        *MESHOPT,
        BASIS,
        "KHR_animation_pointer",
        "KHR_lights_punctual",
        "KHR_materials_anisotropy",
        "KHR_materials_variants",
        "KHR_node_visibility",
        "MSFT_lod",
    }
)
"""Extensions that are resolved before Blender's importer reads the materials, or show nothing."""

IMPORTABLE_EXTENSIONS = REMOVED_EXTENSIONS | {
    DRACO,
    INSTANCING,
    WEBP,
    "KHR_materials_clearcoat",
    "KHR_materials_emissive_strength",
    "KHR_materials_ior",
    "KHR_materials_pbrSpecularGlossiness",
    "KHR_materials_sheen",
    "KHR_materials_specular",
    "KHR_materials_transmission",
    "KHR_materials_unlit",
    "KHR_materials_volume",
    "KHR_mesh_quantization",
    "KHR_texture_transform",
}
"""Extensions that `extensionsRequired` may name: those of Blender 4.5's importer, and those that it
never sees."""
