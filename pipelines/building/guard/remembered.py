"""The settings that a dataset remembers of its builds, per rig, in build.json.

A build starts from them, so that `lrm build --root DIR` is the refresh. Settings of the machine or
of one call (`address`, `limit`, `execution`, `fetch`, `blender`, `prices`) are not remembered.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from core.config import canonical_json, without
from core.errors import BadInput
from core.options import leaves
from core.storage import Storage
from dataset.build_records import read_records
from dataset.root import check_root, read_build
from pipelines.building.build_config import BuildConfig
from render.rigs import get_rig

__all__ = [
    "REMEMBERED",
    "Memory",
    "Remembered",
    "differences",
    "read_memory",
    "remembered_settings",
    "settings_beside_defaults",
]

REMEMBERED = (
    *("source", "captions", "lvis", "geometry", "keep_raw", "inspect", "filters", "render"),
    *("surface", "shards", "stages"),
)
"""The settings and sections that a dataset remembers for each of its rigs."""
_OF_RESULTS = ("geometry", "inspect", "render", "surface", "stages")
"""Those on which results depend."""
_MAX_FORMER = 50
"""Number of different settings of former builds that are used."""
_MAX_RECORDS = 200
"""Number of newest records of builds in which they are searched."""


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
    root: Storage | None = None
    """The dataset; None if there is none."""

    @cached_property
    def configs(self) -> Sequence[BuildConfig]:
        """The remembered settings of all rigs, and those of former builds with other results.

        Results of a build before the last one may exist. Only the first use reads the records of
        these builds.
        """
        remembered = [remembered.config for remembered in self.rigs.values()]
        known = {_of_results(config) for config in remembered}
        former = [] if self.root is None else _former_settings(self.root)
        return remembered + [config for config in former if _of_results(config) not in known]

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
        rigs[rig] = Remembered(
            config=_config(root, rig, entry["settings"], where),
            versions=entry.get("versions"),
            accepted=entry.get("accepted", {}),
        )
    return Memory(rigs=rigs, last_rig=last.rig, root=root)


def _config(root: Storage, rig: str, settings: Mapping[str, Any], where: str) -> BuildConfig:
    """Return the configuration of remembered settings."""
    values = {name: settings[name] for name in REMEMBERED if name in settings}
    return BuildConfig.load(values | {"root": root.uri, "rig": rig}, where=where)


def _former_settings(root: Storage) -> list[BuildConfig]:
    """Return the settings of the last builds that have a record: those with which results differ.

    The newest come first. Records that another version of the software wrote, and this one cannot
    use, are left out.
    """
    found: dict[str, BuildConfig] = {}
    for record in reversed(read_records(root, _MAX_RECORDS)):
        with contextlib.suppress(BadInput, KeyError, TypeError):
            config = _config(root, get_rig(record["rig"]).name, record["settings"], root.uri)
            found.setdefault(_of_results(config), config)
    return list(found.values())[:_MAX_FORMER]


def _of_results(config: BuildConfig) -> str:
    """Return the settings on which results depend, as a key."""
    values = config.dump()
    return canonical_json([config.rig, *(values[name] for name in _OF_RESULTS)])


def remembered_settings(root: Storage, rig: str | None = None) -> BuildConfig | None:
    """Return the settings of the last build with this rig, else of the last build, for that rig.

    Settings that a dataset does not remember have their defaults. Returns None for an empty root.
    """
    remembered = read_memory(root).of(rig)
    if remembered is None:
        return None
    return remembered.config.model_copy(update={"rig": rig or remembered.config.rig})


def settings_beside_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of remembered settings that are not their defaults, by path.

    Settings of another version of the software, which this one cannot read, give none.
    """
    required: dict[str, Any] = {"root": "", "source": ""}
    try:
        config = BuildConfig.load(required | dict(settings))
    except BadInput:
        return {}
    return {p: now for p, (_, now) in differences(BuildConfig.load(required), config).items()}


def differences(before: BuildConfig, after: BuildConfig) -> dict[str, tuple[Any, Any]]:
    """Return the remembered settings that differ, by path, each with both values."""
    old, new = before.dump(), after.dump()
    pairs = {}
    for path, _ in leaves(BuildConfig):
        names = path.split(".")
        if names[0] in REMEMBERED:
            pairs[path] = (without(old, names)[1], without(new, names)[1])
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}
