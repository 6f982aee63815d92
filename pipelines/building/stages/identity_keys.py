"""The settings that are part of a stage's identity, under names that never change.

A stage's result is valid while its identity stays the same (stages.identities). An identity
that followed from where a setting lies would render all of Objaverse again when one is moved. So
each key has a frozen name in the digest, and the path where the setting lies today. A setting that
is added later is listed with the value that means "as before", and enters the digest only when it
has another one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.config import Config

__all__ = [
    "INSPECT_KEYS",
    "LIMIT_KEYS",
    "RENDER_KEYS",
    "SURFACE_KEYS",
    "IdentityKey",
    "identity_of",
]

_ALWAYS = object()


@dataclass(frozen=True)
class IdentityKey:
    """A setting that makes a stage's result another one."""

    name: str
    """Its name in the digest. Never changes."""
    path: str
    """Where it lies in the build's configuration, such as `render.resolution`."""
    omitted_at: Any = _ALWAYS
    """The value at which the key is left out of the digest: that of results from before the setting
    existed. By default the key is always there."""


def _keys(section: str, names: str) -> tuple[IdentityKey, ...]:
    """Keys that lie in one section under their own names."""
    return tuple(IdentityKey(name, f"{section}.{name}") for name in names.split())


RENDER_KEYS = _keys(
    "render",
    "resolution samples min_samples quality denoise device texture_size light_strength "
    "light_gradient seed",
)
"""Of a rendered sample."""
INSPECT_KEYS = _keys(
    "inspect",
    "max_file_bytes max_json_bytes max_nodes max_node_depth max_triangles max_elements "
    "max_image_pixels max_total_pixels",
)
"""Of an inspection: a file over one of its limits fails."""
SURFACE_KEYS = _keys("surface", "points seed")
"""Of the companion geometry."""
LIMIT_KEYS = (
    *_keys(
        "blender",
        "threads import_seconds measure_seconds render_seconds warm_seconds memory_bytes "
        "objects_per_child recycle_bytes",
    ),
    IdentityKey("max_nodes", "inspect.max_nodes"),
    IdentityKey("max_triangles", "inspect.max_triangles"),
    IdentityKey("max_texture_pixels", "inspect.max_total_pixels"),
)
"""Of a failure that other limits of the Blender child, or of the file, may prevent."""


def identity_of(config: Config, keys: Sequence[IdentityKey]) -> dict[str, Any]:
    """Return the values of the keys, as plain values for a digest."""
    values = config.dump()
    found = {key.name: _value_at(values, key.path) for key in keys}
    return {key.name: found[key.name] for key in keys if found[key.name] != key.omitted_at}


def _value_at(values: Any, path: str) -> Any:
    for name in path.split("."):
        values = values[name]
    return values
