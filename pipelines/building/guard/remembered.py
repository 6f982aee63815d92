"""The settings that a dataset remembers of its builds, per rig, in build.json.

A build starts from them, so that `lrm build --root DIR` is the refresh. Settings of the machine or
of one call (`address`, `limit`, `execution`, `fetch`, `blender`, `prices`) are not remembered.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.config import without
from core.options import leaves
from core.storage import Storage
from dataset.root import check_root, read_build
from pipelines.building.build_config import BuildConfig

__all__ = [
    "REMEMBERED",
    "Memory",
    "Remembered",
    "differences",
    "read_memory",
    "remembered_settings",
]

REMEMBERED = (
    *("source", "captions", "lvis", "geometry", "keep_raw", "inspect", "filters", "render"),
    *("surface", "shards", "stages"),
)
"""The settings and sections that a dataset remembers for each of its rigs."""


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """What a dataset remembers of the last build with one rig."""

    config: BuildConfig
    """The remembered settings, with the dataset's root; the others have their defaults."""
    versions: Mapping[str, str] | None = None
    """The versions of that build, by name; None if an earlier version of the software wrote it."""
    accepted: Mapping[str, Any] = field(default_factory=dict)
    """Per stage, the repeated work that an interrupted build had begun: the digest of the stage's
    settings (`settings`) and the number of objects (`objects`)."""

    def entry(self) -> dict[str, Any]:
        """Return the entry of build.json."""
        values = self.config.dump()
        entry = {
            "settings": {name: values[name] for name in REMEMBERED},
            "accepted": dict(self.accepted),
        }
        return entry if self.versions is None else entry | {"versions": dict(self.versions)}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a dataset remembers of all its rigs."""

    rigs: Mapping[str, Remembered] = field(default_factory=dict)
    last_rig: str | None = None
    """The rig of the last build; None for a dataset without a build."""

    @property
    def configs(self) -> list[BuildConfig]:
        """The remembered settings of all rigs."""
        return [remembered.config for remembered in self.rigs.values()]

    def of(self, rig: str | None) -> Remembered | None:
        """Return what is remembered of a rig; of the last build's rig for None or an unknown one.

        Returns None if the dataset has no build.
        """
        if self.last_rig is None:
            return None
        return self.rigs.get(rig or self.last_rig, self.rigs[self.last_rig])

    def entries(self) -> dict[str, Any]:
        """Return the value of `rigs` in build.json."""
        return {rig: remembered.entry() for rig, remembered in self.rigs.items()}


def read_memory(root: Storage) -> Memory:
    """Return what a dataset remembers of its builds; an empty memory if there is no dataset.

    A dataset of an earlier version remembers the configuration of its last build. Raises BadInput
    or WorkFailed if the root or its record cannot be used.
    """
    build = read_build(root) if check_root(root) else {}
    if "config" not in build:
        return Memory()
    where = f"{root.uri}: build.json"
    last = BuildConfig.load(build["config"] | {"root": root.uri}, where=where)
    rigs = {}
    for rig, entry in ({last.rig: {"settings": last.dump()}} | build.get("rigs", {})).items():
        values = {name: entry["settings"][name] for name in REMEMBERED if name in entry["settings"]}
        rigs[rig] = Remembered(
            config=BuildConfig.load(values | {"root": root.uri, "rig": rig}, where=where),
            versions=entry.get("versions"),
            accepted=entry.get("accepted", {}),
        )
    return Memory(rigs=rigs, last_rig=last.rig)


def remembered_settings(root: Storage, rig: str | None = None) -> BuildConfig | None:
    """Return the settings of the last build with this rig, else of the last build, for that rig.

    Settings that a dataset does not remember have their defaults. Returns None for an empty root.
    """
    remembered = read_memory(root).of(rig)
    if remembered is None:
        return None
    return remembered.config.model_copy(update={"rig": rig or remembered.config.rig})


def differences(before: BuildConfig, after: BuildConfig) -> dict[str, tuple[Any, Any]]:
    """Return the remembered settings that differ, by path, each with both values."""
    old, new = before.dump(), after.dump()
    pairs = {}
    for path, _ in leaves(BuildConfig):
        names = path.split(".")
        if names[0] in REMEMBERED:
            pairs[path] = (without(old, names)[1], without(new, names)[1])
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}
