"""The export of a snapshot in the folder layout of another trainer; it can be resumed."""

import contextlib
import functools
import json
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any

from core.atomic import atomic_folder, make_folder
from core.errors import BadInput, LrmError, WorkFailed, cannot_write
from core.outputs import writing
from core.paths.leftovers import remove_leftovers
from core.paths.regular_file import read_regular
from core.paths.remove_path import remove_path
from core.quantities import duration
from core.storage import Storage
from dataset.format.shards import read_members
from dataset.object_record import sample_key
from dataset.snapshots.references import resolve
from dataset.snapshots.snapshot import Sample, open_snapshot
from dataset.views import ViewSet, decode_views
from pipelines.building.progress import Display
from render.layouts import Files, Layout, get_layout

__all__ = ["export"]

EXPORT_VERSION = 1
"""Increase it when a layout's files change, so that existing exports are written again."""
_RECORD = "export.json"
"""The file in an object's folder that lists the files and their sizes."""

Outcome = tuple[str, str]
"""`exported`, `skipped` (the object was already exported) or `failed`; and the cause of failure."""


def export(
    root: Storage, reference: str, layout_name: str, split: str, out: str, workers: int
) -> dict[str, Any]:
    """Write a snapshot's samples of a split (or `all`) in a layout; return the summary.

    `reference` is an id, the start of one, a name or `latest`. Objects that were completely
    exported from the same render are skipped. An object that cannot be read or does not fit the
    layout is reported as failed, and the layout's listing omits it. Objects in the folder that are
    not among the samples stay, and are counted. Raises BadInput before anything is written, and
    WorkFailed if writing to `out` fails later.
    """
    layout = get_layout(layout_name)
    snapshot_id = resolve(root, reference)
    samples = _samples(root, snapshot_id, split)
    folder = _folder(out)
    _check_layout(root, samples, layout)
    try:
        make_folder(folder / layout.folder)
        for place in {folder, folder / layout.folder}:
            remove_leftovers(place)
    except OSError as error:
        raise cannot_write(f"--out {out}: cannot write to this folder", error) from None
    failed: dict[str, str] = {}
    with writing(out):
        counts = _write_objects(root, samples, layout, folder, workers, failed)
        if layout.listing:
            exported = [sample for sample in samples if sample.asset_id not in failed]
            listing = layout.listing([sample_key(sample.asset_id) for sample in exported])
            Storage(folder).write(*listing)
    return {
        "layout": layout.name,
        "snapshot": snapshot_id,
        "split": split,
        "out": str(folder),
        "objects": len(samples),
        "exported": counts["exported"],
        "skipped": counts["skipped"],
        "failed": failed,
        "others": _other_objects(folder / layout.folder, samples),
    }


def _other_objects(folder: Path, samples: Sequence[Sample]) -> list[str]:
    """Return the folders of objects that were exported earlier and are not among the samples."""
    keys = {sample_key(sample.asset_id) for sample in samples}
    names = sorted(path.name for path in folder.iterdir() if path.name not in keys)
    return [name for name in names if (folder / name / _RECORD).is_file()]


def _samples(root: Storage, snapshot_id: str, split: str) -> Sequence[Sample]:
    snapshot = open_snapshot(root, snapshot_id)
    samples = snapshot.samples if split == "all" else snapshot.of_split(split)
    if not samples:
        raise BadInput(f"snapshot {snapshot_id} has no sample in the split {split!r}")
    return samples


def _folder(out: str) -> Path:
    if "://" in out:
        raise BadInput(
            f"--out {out}: an export is written to a local folder only; copy it from there"
        )
    folder = Path(out).absolute()
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"--out {out}: exists and is not a folder")
    return folder


def _check_layout(root: Storage, samples: Sequence[Sample], layout: Layout) -> None:
    """Raise BadInput if a rig's views do not fit the layout.

    One readable sample per rig is enough: the rig determines lens, normalisation and views.
    """
    checked: set[str] = set()
    for sample in samples:
        if sample.rig in checked:
            continue
        with contextlib.suppress(WorkFailed):
            _read(root, sample, layout)
            checked.add(sample.rig)


def _write_objects(
    root: Storage,
    samples: Sequence[Sample],
    layout: Layout,
    folder: Path,
    workers: int,
    failed: dict[str, str],
) -> Counter[str]:
    """Export every sample, print progress, and return the number of objects per outcome.

    Failed objects and their causes are added to `failed`.
    """
    counts: Counter[str] = Counter()
    display = Display()

    def line() -> str:
        return _progress_line(len(samples), counts, time.monotonic() - display.started)

    work = functools.partial(_export_object, root, layout.name, folder / layout.folder)
    try:
        for sample, (outcome, cause) in _outcomes(samples, work, min(workers, len(samples))):
            counts[outcome] += 1
            if outcome == "failed":
                failed[sample.asset_id] = cause
            display.show(line)
        display.end(line())
    finally:
        display.close()
    return counts


def _export_object(root: Storage, layout_name: str, folder: Path, sample: Sample) -> Outcome:
    """Write one object's folder, unless it is complete. Raises OSError if it cannot be written."""
    layout = get_layout(layout_name)
    identity = {
        "version": EXPORT_VERSION,
        "asset_id": sample.asset_id,
        "sha256": sample.sha256,
        "render_key": sample.render_key,
    }
    target = folder / sample_key(sample.asset_id)
    if _is_complete(target, identity):
        return "skipped", ""
    try:
        views = _read(root, sample, layout)
    except LrmError as error:
        return "failed", str(error)
    _write_folder(target, layout.files(views), identity)
    return "exported", ""


def _read(root: Storage, sample: Sample, layout: Layout) -> ViewSet:
    """Return the sample's views.

    Raises WorkFailed if they cannot be read, and BadInput if they do not fit the layout.
    """
    try:
        members = read_members(root, sample.shard, sample.entry, sample.entry.members)
        views, meta = decode_views(members)
    except (WorkFailed, OSError, EOFError) as error:
        raise WorkFailed(
            f"{sample.asset_id}: cannot read the views of this object: {error}; "
            f"`lrm verify --root {root.uri}` says what to do"
        ) from error
    try:
        layout.check(views, meta.get("normalise"))
    except BadInput as error:
        raise BadInput(
            f"{sample.asset_id} (rig {sample.rig}) does not fit the layout {layout.name}: {error}"
        ) from None
    return views


def _is_complete(target: Path, identity: Mapping[str, Any]) -> bool:
    """Return whether the folder holds all files of this render, with their sizes."""
    try:
        record = json.loads(read_regular(target / _RECORD))
        files = record.pop("files")
        return record == identity and all(
            (target / name).stat().st_size == size for name, size in files.items()
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def _write_folder(target: Path, files: Files, identity: Mapping[str, Any]) -> None:
    """Write an object's files and their record; an incomplete folder is replaced."""
    with atomic_folder(target) as temporary:
        sizes = {}
        for name, data in files:
            (temporary / name).write_bytes(data)
            sizes[name] = len(data)
        (temporary / _RECORD).write_text(json.dumps({**identity, "files": sizes}))
        remove_path(target)


def _outcomes(
    samples: Sequence[Sample], work: Callable[[Sample], Outcome], workers: int
) -> Iterator[tuple[Sample, Outcome]]:
    """Yield each sample with its outcome, in the order of completion.

    Processes are used, not threads, because decoding and PNG encoding hold Python's global lock.
    """
    if workers == 1:
        yield from ((sample, work(sample)) for sample in samples)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    remaining = iter(samples)
    running: dict[Future[Outcome], Sample] = {}
    try:
        while True:
            # No more than the workers can run: after an interruption, submitted work must end.
            for sample in islice(remaining, workers - len(running)):
                running[pool.submit(work, sample)] = sample
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise WorkFailed(
            "a worker process was killed, perhaps because memory ran out: run the same command "
            "with fewer --workers to continue"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Let a worker process ignore Ctrl-C, which the parent handles, and end with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _progress_line(total: int, counts: Mapping[str, int], elapsed: float) -> str:
    ended = sum(counts.values())
    worked = ended - counts.get("skipped", 0)
    left = duration(elapsed / worked * (total - ended) if worked else None)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    return (
        f"[{duration(elapsed)}] {ended} of {total} objects ({outcomes or 'none done'}) | "
        f"{left} left"
    )
