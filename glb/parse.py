"""The entry point of the parser: read a GLB that can be rendered, or raise the reason."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.failures import FailureKind
from glb.container import read_container
from glb.document import Document, read_document
from glb.extensions import IMPORTABLE_EXTENSIONS
from glb.glb_error import GlbError, malformed
from glb.image_headers import check_image_size, image_size
from glb.limits import GlbLimits
from glb.node_tree import NodeTree, walk_nodes
from glb.primitives import DrawnPrimitive, drawn_primitives
from glb.shown_materials import check_materials
from glb.skins import check_skins

__all__ = ["Glb", "read_glb"]


@dataclass(frozen=True, eq=False)
class Glb:
    """A GLB file that passed all checks that need neither Blender nor an image or Draco decoder."""

    document: Document
    """The content that the default scene uses; all other items are empty."""
    tree: NodeTree
    drawn: Sequence[DrawnPrimitive]
    """The primitives with triangles that a picture shows."""
    largest_image: int
    """Pixels of the largest image that a drawn material uses, by its header; 0 without images."""


def read_glb(source: Path | str | bytes, limits: GlbLimits) -> Glb:
    """Parse and check a GLB file, given by its path or its bytes, in time linear in its size.

    The inspection and the Blender child both call it, so the child can read what the inspection
    accepted. It decodes no image or Draco mesh, follows no URI and reads nothing outside the file.
    What a picture of the default scene does not need is removed without a check. Raises only
    GlbError for a file that cannot or must not be rendered, and OSError if the path cannot be read.
    """
    document = read_document(read_container(source, limits), limits)
    _check_extensions(document)
    tree = walk_nodes(document, limits)
    drawn = drawn_primitives(document, tree, limits)
    _check_num_materials(drawn, limits)
    check_skins(document, tree)
    images = check_materials(document, tree)
    largest_image = _largest_image(document, sorted(images), limits)
    document.drop_unused()
    return Glb(document, tree, drawn, largest_image)


def _check_extensions(document: Document) -> None:
    required = set(document.json.get("extensionsRequired") or [])
    unsupported = sorted(required - IMPORTABLE_EXTENSIONS)
    if unsupported:
        names = ", ".join(name[:60] for name in unsupported[:5])
        raise GlbError(FailureKind.UNSUPPORTED_EXTENSION, f"requires {names}")


def _check_num_materials(drawn: Iterable[DrawnPrimitive], limits: GlbLimits) -> None:
    number = len({item.primitive.get("material") for item in drawn})
    if number > limits.max_materials:
        message = f"{number} drawn materials; the limit is {limits.max_materials}"
        raise GlbError(FailureKind.TOO_LARGE, message)


def _largest_image(document: Document, images: Iterable[int], limits: GlbLimits) -> int:
    """Return the pixels of the largest image. Raises GlbError if one is too large."""
    sizes: dict[tuple[str, int], int] = {}
    total = num_bytes = 0
    for index in images:
        key = document.image_key(index)
        if key not in sizes:
            data = document.image(index)
            num_bytes += len(data)
            # Overlapping images would make reading them all slower than linear in the file size.
            if num_bytes > 2 * document.container.num_bytes:
                raise malformed("the images overlap in the file")
            width, height = image_size(data) or (0, 0)
            check_image_size(f"image {index}", (width, height), limits)
            sizes[key] = width * height
        total += sizes[key]
        if total > limits.max_total_pixels:
            message = (
                f"the images have more pixels in total than the limit of {limits.max_total_pixels}"
            )
            raise GlbError(FailureKind.TOO_LARGE, message)
    return max(sizes.values(), default=0)
