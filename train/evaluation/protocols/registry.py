"""All protocols of `lrm evaluate` by name: a new one is entered here.

A protocol's module imports torch, so it is imported when the protocol is used, and not for the
command line's help.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.errors import BadInput

if TYPE_CHECKING:
    from train.evaluation.protocols.shape_protocol import ShapeProtocol

__all__ = ["DEFAULT_PROTOCOL", "NUM_POINTS", "PROTOCOLS", "ProtocolKind", "make_protocol"]

NUM_POINTS = 16_000
"""Number of points sampled on each surface, as in InstantMesh's evaluation."""
DEFAULT_PROTOCOL = "instantmesh"


@dataclass(frozen=True, kw_only=True)
class ProtocolKind:
    """A protocol by name: where its class is defined, and its settings."""

    class_path: str
    """Module and name of its class, as `package.module:Name`."""
    settings: Mapping[str, float]
    """Its settings with their defaults; `lrm evaluate` has an option of the same name for each."""


PROTOCOLS: Mapping[str, ProtocolKind] = {
    "instantmesh": ProtocolKind(
        class_path="train.evaluation.protocols.instantmesh_protocol:InstantMeshProtocol",
        settings={"threshold": 0.2},
    ),
    "pixel2mesh": ProtocolKind(
        class_path="train.evaluation.protocols.pixel2mesh_protocol:Pixel2MeshProtocol",
        settings={},
    ),
}


def make_protocol(name: str, given: Mapping[str, float | None]) -> "ShapeProtocol":
    """Return a protocol with its default settings and those that are given and not None.

    Raises BadInput for a setting that the protocol does not have.
    """
    kind = PROTOCOLS[name]
    changes = {setting: value for setting, value in given.items() if value is not None}
    for setting in changes:
        if setting not in kind.settings:
            owners = [other for other in PROTOCOLS if setting in PROTOCOLS[other].settings]
            raise BadInput(
                f"--{setting} belongs to --protocol {' and '.join(owners)}; leave it out with "
                f"--protocol {name}, whose settings are fixed"
            )
    module, _, attribute = kind.class_path.partition(":")
    protocol: ShapeProtocol = getattr(importlib.import_module(module), attribute)(
        **{**kind.settings, **changes}
    )
    return protocol
