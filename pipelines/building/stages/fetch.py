"""The stage `fetch`: downloads or copies an object's file to the worker and verifies it."""

import shutil
from pathlib import Path
from typing import Any

from core.failures import FailureKind
from dataset.catalog.event_columns import LIST
from dataset.columns import integer, text
from dataset.object_record import sample_key
from pipelines.building.stages.identity_keys import FETCH_LIMIT_KEYS
from pipelines.building.stages.max_seconds import transfer_seconds
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.queues import FETCH_QUEUE
from pipelines.building.stages.stage import FirstEstimate, ResultFile, Stage, StoredBytes
from pipelines.building.stages.worker_context import WorkerContext
from pipelines.sources import FetchFailed, is_hub
from pipelines.transfers.outcome import FetchedFile, file_sha256

__all__ = ["BYTES", "FETCH", "RAW", "SHA256", "local_glb"]

SHA256 = text("fetch", "sha256", "SHA-256 of the object's file")
BYTES = integer("fetch", "bytes", "size of the object's file")
RAW = text(
    "fetch", "raw", "path of the file's copy below the root; null if none is kept", detail=True
)

_FOLDER = "raw"


def _fetch(state: ObjectState, context: WorkerContext) -> dict[str, Any]:
    with context.scratch_file(f"{sample_key(state.asset_id)[:100]}.fetch") as path:
        fetched = _from_source(state, context, path)
        sha256 = fetched.sha256
        raw = f"{_FOLDER}/{sha256[:2]}/{sha256}.glb" if context.keep_raw else None
        if raw is not None and not context.root.exists(raw):
            context.root.put(raw, path)
        # The stage `inspect` is part of the same task and reads this file.
        context.keep_glb(path, sha256)
        return {SHA256.name: sha256, BYTES.name: fetched.num_bytes, RAW.name: raw}


def _from_source(state: ObjectState, context: WorkerContext, path: Path) -> FetchedFile:
    """Write an object's file to `path`. Raises FetchFailed."""
    version, max_bytes = state.require(LIST.version), context.config.inspect.max_file_bytes
    return context.source.fetch(state.record.path, version, path, max_bytes)


def local_glb(state: ObjectState, context: WorkerContext) -> Path:
    """Return the object's file on local disk, with the checksum of the stage `fetch`.

    The file is the one that the worker keeps, the copy below the root, or fetched again. Raises
    FetchFailed if it cannot be fetched or has changed.
    """
    sha256, raw = state.require(SHA256), state.get(RAW)
    kept = context.kept_glb(sha256)
    if kept is not None:
        return kept
    context.drop_glb()
    with context.scratch_file(f"{sha256}.part") as path:
        try:
            if raw is None:
                raise FileNotFoundError
            with context.root.open(raw) as source, open(path, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 22)
        except FileNotFoundError:
            _from_source(state, context, path)
        if file_sha256(path) != sha256:
            message = f"{state.record.path}: the file changed after it was fetched"
            raise FetchFailed(FailureKind.CHANGED, message)
        return context.keep_glb(path, sha256)


FETCH = Stage(
    name="fetch",
    inputs=(LIST.stage,),
    input_version=LIST.version,
    identity=lambda *_: None,
    enabled_by=lambda _: True,
    columns=(SHA256, BYTES, RAW),
    queue=FETCH_QUEUE,
    run=_fetch,
    limit_keys=FETCH_LIMIT_KEYS,
    max_seconds=transfer_seconds,
    timeout_kind=FailureKind.DOWNLOAD,
    estimate=lambda config: FirstEstimate(seconds=1.0 if is_hub(config.source) else 0.1),
    stores=StoredBytes(column=BYTES, label="fetched", is_output=False),
    file=ResultFile(location=(RAW,), folder=_FOLDER, required=False),
)
