"""Small catalogs with a checkpoint and base files, to damage."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable

from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from dataset.catalog.latest import LatestEvents, Projection
from dataset.catalog.log_check import check_catalog
from dataset.catalog.log_repair import plan_repair, repair_catalog

__all__ = ["FILES", "IS_NO_DAMAGE", "DamagedCatalog", "file_of", "latest", "make_catalog"]

_PROJECTION = Projection(
    version="1", types={"fetch": {"size": pa.int64()}}, read=lambda stage, status, data: dict(data)
)
_STAGES = [("list", ""), ("fetch", ""), ("remove", "")]
FILES: Sequence[str] = (
    *("commit0", "commit1", "commit2", "commit3", "commit5", "events1", "events4", "events5"),
    *("hint", "checkpoint", "record", "base", "index"),
)
"""Files of such a catalog, by their meaning: see `file_of`."""
IS_NO_DAMAGE = {
    ("hint", "deleted"),
    ("record", "deleted"),
    ("index", "deleted"),
    ("commit0", "deleted"),
}
"""These files may be deleted: they are copies, or a checkpoint takes their place."""


def latest(root: Storage) -> LatestEvents:
    """Return the last events of a catalog that `make_catalog` wrote."""
    return LatestEvents(root, Catalog(root), _PROJECTION)


class DamagedCatalog:
    """A catalog as commands read it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = Storage(str(folder))

    def last_events(self) -> dict[tuple[str, str], tuple[str, str]]:
        """Return status and content of the last event of each stage and object."""
        return {
            (stage, row["asset_id"]): (row["status"], row["content"])
            for (stage, _), table in latest(self.root).tables(_STAGES).items()
            for row in table.to_pylist()
        }

    def all_events(self) -> Counter:
        """Return every event of the log."""
        return Counter(
            (row["stage"], row["asset_id"], row["content"])
            for batch in Catalog(self.root).since(0)
            for row in batch.to_pylist()
        )

    def problems(self) -> list:
        """Return what `lrm verify` finds."""
        return check_catalog(self.root).problems or latest(self.root).problems()

    def repair(self) -> int:
        """Repair the catalog and return the number of lost events."""
        repair = plan_repair(self.root)
        repair_catalog(self.root, repair)
        return sum(loss.events or 0 for loss in repair.lost)


def make_catalog(folder: Path, mark: str = "") -> Path:
    """Write a catalog of five commits, with a checkpoint and base files in the middle."""
    root = Storage(str(folder))
    ids = [f"a:{name}" for name in "xyz"]

    def commit(number: int, stage: str, names: list[str]) -> None:
        events = [Event(asset_id=name, stage=stage, content=f"{mark}{number}") for name in names]
        Catalog(root).commit(events, f"run-{mark}{number}", 1)

    commit(1, "list", ids)
    commit(2, "fetch", ids[:2])
    DeltaTable(str(folder / "catalog")).create_checkpoint()
    commit(3, "fetch", ids)
    latest(root).update_base()
    commit(4, "list", ids[1:])
    commit(5, "remove", ids[:1])
    return folder


def file_of(folder: Path, meaning: str) -> Path:
    """Return a file of a catalog by its meaning: commit or events of a number, or a copy."""
    log = folder / "catalog/_delta_log"
    if meaning.startswith("commit"):
        return log / f"{int(meaning[-1]):020}.json"
    if meaning.startswith("events"):
        commit = file_of(folder, f"commit{meaning[-1]}").read_text()
        return folder / "catalog" / commit.partition('"path":"')[2].partition('"')[0]
    if meaning == "base":
        files = json.loads((folder / "latest/index.json").read_text())["files"]
        return folder / next(path for stage, _, path, *_ in files if stage == "fetch")
    if meaning == "record":
        return folder / "catalog/_last_commit.json"
    copies = {"hint": "_last_checkpoint", "checkpoint": f"{2:020}.checkpoint.parquet"}
    return log / copies[meaning] if meaning in copies else folder / "latest/index.json"
