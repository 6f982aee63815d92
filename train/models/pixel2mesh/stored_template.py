"""A template as plain values: in the configuration of a run, and so in its checkpoints."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from core.errors import BadInput
from train.models.pixel2mesh.template_mesh import Template

__all__ = ["dump_template", "load_template"]


def dump_template(template: Template) -> dict[str, Any]:
    """Return the vertices and faces of a template as plain values, exactly."""
    return {"vertices": template.vertices.tolist(), "faces": template.faces.tolist()}


def load_template(values: Mapping[str, Any]) -> Template:
    """Return the template that `dump_template` returned the values of. Raises BadInput."""
    try:
        vertices = np.asarray(values["vertices"], dtype=np.float64)
        faces = np.asarray(values["faces"], dtype=np.int64)
        if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
            raise ValueError("vertices must be rows of three finite numbers")
        if faces.ndim != 2 or faces.shape[1] != 3:
            raise ValueError("faces must be rows of three vertex numbers")
        return Template(vertices=vertices, faces=faces)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        problem = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise BadInput(
            f"template: is no mesh of vertices and faces: {problem}; give an .obj file, or leave "
            "it out"
        ) from None
