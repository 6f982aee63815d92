"""Import of materials by Blender's glTF importer."""

import logging
import re
from pathlib import Path
from typing import Any

import bpy

from core.failures import FailureKind
from render.blender.failure import SceneFailure
from render.blender.gltf.material_file import MESH_NAME

__all__ = ["import_materials"]

_LACKS_EXTENSION = re.compile(r"Extension \S+ is not available")


def import_materials(path: Path) -> list[Any]:
    """Return Blender's materials, from the file of `write_material_file`.

    Raises SceneFailure.
    """
    try:
        bpy.ops.import_scene.gltf(
            filepath=str(path), loglevel=50, import_select_created_objects=False
        )
    except RuntimeError as error:
        raise _import_failure(str(error)) from None
    finally:
        for name in ("glTFImporter", "glTFImporter_errors"):
            # The importer does not remove its own handlers when it fails.
            logging.getLogger(name).handlers.clear()
    materials = list(bpy.data.meshes[MESH_NAME].materials)
    # Removed one by one, each would be searched for in everything that uses it.
    bpy.data.batch_remove([*bpy.data.objects, *bpy.data.meshes])
    return materials


def _import_failure(report: str) -> SceneFailure:
    """Return the failure with the importer's message, without the location in Blender's code."""
    lines = [line.strip() for line in report.splitlines()]
    lines = [line for line in lines if line and not line.startswith("Location:")]
    message = lines[-1].removeprefix("Error: ") if lines else "the importer gave no reason"
    is_extension = _LACKS_EXTENSION.search(message)
    kind = FailureKind.UNSUPPORTED_EXTENSION if is_extension else FailureKind.IMPORT_ERROR
    return SceneFailure(kind, message[:500])
