"""The settings that are part of a stage's identity, under names that never change.

A stage's result is valid while its identity stays the same (stages.identities). If the identity
used the present path of a setting, moving a setting would render all of Objaverse again. Therefore
each key has a frozen name in the digest, and the present path of the setting. A setting that is
added later has an `omitted_at`: at this value it is left out of the digest, so that older results
stay valid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.config import Config

__all__ = [
    "FETCH_LIMIT_KEYS",
    "INSPECT_KEYS",
    "LIMIT_KEYS",
    "RENDER_KEYS",
    "SCENE_KEYS",
    "SURFACE_KEYS",
    "IdentityKey",
    "identity_of",
]

_ALWAYS = object()


@dataclass(frozen=True)
class IdentityKey:
    """A setting that a stage's result depends on."""

    name: str
    """The frozen name in the digest. Must never change."""
    path: str
    """The present path in the build's configuration, such as `render.resolution`."""
    omitted_at: Any = _ALWAYS
    """The value at which the digest omits the key: the one that gives the same results as before
    the setting existed. By default the key is never omitted."""


def _keys(section: str, names: str) -> tuple[IdentityKey, ...]:
    """Return the keys of settings that have the same name in a section and in the digest."""
    return tuple(IdentityKey(name, f"{section}.{name}") for name in names.split())


RENDER_KEYS = _keys(
    "render",
    "resolution samples min_samples quality denoise device texture_size light_strength "
    "light_gradient seed",
)
"""The settings of a rendered sample."""
SCENE_KEYS = (IdentityKey("cull_shells", "render.cull_shells", omitted_at=True),)
"""The settings with which a file becomes a scene."""
_STEPS = (
    IdentityKey("max_parts", "inspect.max_parts", omitted_at=500_000),
    IdentityKey("max_materials", "inspect.max_materials", omitted_at=5_000),
)
INSPECT_KEYS = (
    *_keys(
        "inspect",
        "max_file_bytes max_json_bytes max_nodes max_node_depth max_triangles max_elements "
        "max_image_pixels max_total_pixels",
    ),
    *_STEPS,
)
"""The limits of an inspection: a file that exceeds one fails."""
SURFACE_KEYS = _keys("surface", "points seed")
"""The settings of the companion geometry."""
FETCH_LIMIT_KEYS = _keys("inspect", "max_file_bytes")
"""The limits of a fetch: a file that exceeds one is not fetched."""
LIMIT_KEYS = (
    *_keys(
        "blender",
        "threads import_seconds measure_seconds render_seconds memory_bytes objects_per_child "
        "recycle_bytes",
    ),
    IdentityKey("warm_seconds", "blender.kernel_compile_seconds"),
    IdentityKey("max_nodes", "inspect.max_nodes"),
    IdentityKey("max_triangles", "inspect.max_triangles"),
    IdentityKey("max_texture_pixels", "inspect.max_total_pixels"),
)
"""The limits of a failure that may succeed with other limits of the Blender child or the file."""


def identity_of(config: Config, keys: Sequence[IdentityKey]) -> dict[str, Any]:
    """Return the values of the keys, as plain values for a digest."""
    values = config.dump()
    present = {key.name: _value_at(values, key.path) for key in keys}
    return {key.name: present[key.name] for key in keys if present[key.name] != key.omitted_at}


def _value_at(values: Any, path: str) -> Any:
    for name in path.split("."):
        values = values[name]
    return values
