"""The inspection of a GLB: its limits, and where it runs."""

from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

from core.config import Config, PositiveInt
from core.confined.confined_process import ConfinedFailure, ConfinedProcess
from core.errors import first_line
from core.failures import FailureKind
from filters.inspection import Inspection, inspect
from glb.glb_error import GlbError
from glb.limits import GlbLimits

__all__ = ["GlbError", "InspectLimits", "Inspection", "inspect_confined", "inspect_glb"]

_INSPECTION = pydantic.TypeAdapter(Inspection)


class InspectLimits(Config):
    """Limits on a GLB file, for the inspection and for the Blender child.

    Sizes in a GLB file have 32 bits.
    """

    max_file_bytes: Annotated[int, Field(gt=0, lt=2**32)] = GlbLimits.max_file_bytes
    """Maximum size of the file in bytes."""
    max_json_bytes: Annotated[int, Field(gt=0, lt=2**32)] = GlbLimits.max_json_bytes
    """Maximum size of its JSON chunk in bytes; parsed, it takes many times as much memory."""
    max_nodes: PositiveInt = GlbLimits.max_nodes
    """Maximum number of nodes plus GPU instances."""
    max_node_depth: Annotated[int, Field(gt=0, le=10_000)] = GlbLimits.max_node_depth
    """Maximum depth of the node tree in levels; deeper trees are damaged files."""
    max_triangles: PositiveInt = GlbLimits.max_triangles
    """Maximum number of drawn triangles, counted once per instance."""
    max_elements: PositiveInt = GlbLimits.max_elements
    """Maximum number of vertex attribute values and indices that the primitives refer to."""
    max_parts: PositiveInt = GlbLimits.max_parts
    """Maximum number of copies of primitives, plus five times that of morph targets per pose."""
    max_materials: PositiveInt = GlbLimits.max_materials
    """Maximum number of drawn materials."""
    max_image_pixels: PositiveInt = GlbLimits.max_image_pixels
    """Maximum number of pixels of a single image (width times height)."""
    max_total_pixels: Annotated[int, Field(gt=0, le=2**40)] = GlbLimits.max_total_pixels
    """Maximum number of pixels of all images together."""

    def glb_limits(self) -> GlbLimits:
        """Return the limits in the form that the parser takes."""
        return GlbLimits(**self.dump())


def inspect_glb(source: Path | str | bytes, limits: InspectLimits | None = None) -> Inspection:
    """Inspect a GLB file in this process; see `filters.inspection.inspect`."""
    return inspect(source, (limits or InspectLimits()).glb_limits())


def inspect_confined(
    process: ConfinedProcess, path: Path, limits: InspectLimits, *, seconds: float, max_bytes: int
) -> dict[str, Any]:
    """Inspect a stranger's file in a confined process; return the inspection as plain values.

    Raises ConfinedFailure with the kind of a GlbError, or of a limit on time or resident memory.
    """
    values, _ = process.run(
        "filters.inspection:inspect_file",
        str(path.absolute()),
        limits.dump(),
        seconds=seconds,
        max_bytes=max_bytes,
    )
    try:
        return _INSPECTION.validate_python(values).to_dict()
    except pydantic.ValidationError as error:
        message = f"the answer of inspect is invalid: {first_line(error)}"
        raise ConfinedFailure(FailureKind.CRASH, message) from None
