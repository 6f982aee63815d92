"""The worker context: the state that a worker keeps between tasks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from core.confined.confined_process import ConfinedProcess
from core.paths.scratch import scratch_folder
from core.storage import Storage
from dataset.catalog.event_log import Event
from pipelines.building.build_config import BuildConfig
from pipelines.building.stages.identities import Identities
from pipelines.sources import Source
from render.rigs import get_rig

if TYPE_CHECKING:
    from render.process import BlenderProcess

__all__ = ["StageStart", "WorkerContext", "seconds_before_retry"]

_RETRY_SECONDS = 5.0
"""Seconds of wait after the first infrastructure fault; four times as long after the second."""


def seconds_before_retry(failures: int) -> float:
    """Return the wait in seconds after this many failures: 5 * failures^2.

    A full disk or a broken connection needs time to recover.
    """
    return _RETRY_SECONDS * failures**2


@dataclass(frozen=True, kw_only=True)
class StageStart:
    """The start of an attempt at a stage, for the driver."""

    stage: str
    asset_id: str
    """The object; empty for a group of objects."""
    max_seconds: float
    events: Sequence[Event] = ()
    """The events of the object's earlier stages in the same task."""


class WorkerContext:
    """The objects that stages work with: storages, a scratch folder, the Blender child.

    The Blender child and the process of the inspection start at their first use. Not thread-safe.
    """

    def __init__(self, config: BuildConfig, source: Source) -> None:
        self.config = config
        self.source = source
        self.identities = Identities(config)
        self.root = Storage(config.root)
        self.rig = get_rig(config.rig)
        self.keep_raw = not source.is_local if config.keep_raw is None else config.keep_raw
        self.inspector = ConfinedProcess("inspect")
        """The confined process in which files are inspected."""
        self._scratch = scratch_folder("work")
        self.open_object: tuple[str, dict[str, Any]] | None = None
        """The sha256 of the file that is open in the Blender child, and Blender's report on it."""
        self._kept: tuple[str, Path] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child processes and remove the scratch folder."""
        self.inspector.close()
        if "blender" in self.__dict__:
            self.blender.close()
        self._scratch.cleanup()

    def abandon_scene(self) -> None:
        """End the Blender child in the middle of its work; the next stage starts another one."""
        self.open_object = None
        if "blender" in self.__dict__:
            self.blender.close()

    @cached_property
    def blender(self) -> "BlenderProcess":
        """This worker's Blender child."""
        # Imported here because only workers need it.
        from render.process import BlenderProcess

        config = self.config
        return BlenderProcess(config.blender, config.render.device, config.inspect.glb_limits())

    @contextmanager
    def scratch_file(self, name: str) -> Iterator[Path]:
        """Yield the path of a temporary file, which is removed afterwards."""
        path = Path(self._scratch.name) / name
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def keep_glb(self, path: Path, sha256: str) -> Path:
        """Move a verified file to a path where the next stages find it; only one is kept."""
        self.drop_glb()
        kept = path.replace(path.with_name(f"{sha256}.glb"))
        self._kept = (sha256, kept)
        return kept

    def kept_glb(self, sha256: str) -> Path | None:
        """Return the kept file if it has this checksum, else None."""
        return self._kept[1] if self._kept is not None and self._kept[0] == sha256 else None

    def drop_glb(self) -> None:
        """Remove the kept file, if there is one."""
        if self._kept is not None:
            self._kept[1].unlink(missing_ok=True)
        self._kept = None
