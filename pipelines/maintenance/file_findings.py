"""The findings of `lrm verify` about whole files that belong to no object."""

from dataclasses import asdict
from typing import Any

from core.storage import Storage
from dataset.catalog.log_files import CatalogProblem
from dataset.maintenance.shard_check import Finding
from dataset.snapshots.manifests import list_snapshots
from dataset.snapshots.rows import check_snapshot

__all__ = ["catalog_finding", "snapshot_findings"]


def catalog_finding(root: Storage, problem: CatalogProblem) -> dict[str, Any]:
    """Return the JSON of damage to the catalog."""
    return _whole_file(problem.file, problem.problem, f"lrm repair --root {root.uri}")


def _whole_file(file: str, problem: str, remedy: str) -> dict[str, Any]:
    """Return the JSON of damage to a whole file that belongs to no object."""
    finding = Finding(file=file, problem=problem)
    text = f"{file} {problem}; {remedy}"
    return asdict(finding) | {"asset_id": None, "remedy": remedy, "text": text}


def snapshot_findings(root: Storage) -> list[dict[str, Any]]:
    """Check the rows, manifest and credits of every snapshot; return the JSON of damage."""
    damage = (check_snapshot(root, snapshot_id) for snapshot_id in list_snapshots(root))
    return [
        _whole_file(
            f"snapshots/{error.snapshot_id}", f"cannot be read: {error.problem}", error.remedy
        )
        for error in damage
        if error is not None
    ]
