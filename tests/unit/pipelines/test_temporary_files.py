"""`lrm compact` removes the temporary files of killed writers in every folder of a dataset."""

import os
import time
from pathlib import Path
from typing import Any

from core.paths.leftovers import LEFTOVER_SECONDS
from dataset.root import DATASET_FOLDERS
from pipelines.maintenance.compaction import compact_dataset
from tests.support.small_datasets import SmallDataset, small_dataset

TEMPORARY = ".index.json.tmp-0123abcd"
OF_CATALOG = (
    "catalog/_delta_log/00000000000000000099.json#1",
    "catalog/part-00000-c000.snappy.parquet#2",
)
OF_USERS = ("notes.tmp-0123abcd", "latest/.notes", "snapshots/notes#1")


def compact(dataset: SmallDataset, *, dry_run: bool = False) -> dict[str, Any]:
    return compact_dataset(dataset.root, 0.5, [], None, dry_run=dry_run, wait=False)


def test_old_temporary_files_are_removed_from_every_folder(tmp_path: Path):
    dataset = small_dataset(tmp_path)
    dataset.build()
    root = dataset.folder / "root"
    folders = ("", *DATASET_FOLDERS, "catalog/_delta_log", "shards/lrm32")
    temporary = [root / folder / TEMPORARY for folder in folders]
    temporary += [root / name for name in OF_CATALOG]
    others = [root / name for name in OF_USERS]
    for path in (*temporary, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    assert compact(dataset)["deleted"]["files"] == 0  # their writers may still run
    then = time.time() - LEFTOVER_SECONDS - 60
    for path in (*temporary, *others):
        os.utime(path, (then, then))
    sizes = {"files": len(temporary), "bytes": 4 * len(temporary)}
    assert compact(dataset, dry_run=True)["deleted"] == sizes
    assert compact(dataset)["deleted"] == sizes
    assert [path for path in temporary if path.exists()] == []
    assert all(path.exists() for path in others)
