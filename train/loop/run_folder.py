"""Checks of the folder of a run before anything is written there: what else it contains."""

import contextlib
import json
import logging
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import BadInput, Damaged
from core.storage import Storage, storage_errors
from dataset.root import FORMAT_FILE
from train.checkpoints.checkpoint import checkpoint_names, read_checkpoint
from train.checkpoints.checkpoint_paths import checkpoint_storage
from train.monitoring.run_file import RUN_FILE, read_run
from train.settings.train_config import TrainConfig

__all__ = ["check_run_folder"]

_log = logging.getLogger(__name__)

RecipeOf = Callable[[Mapping[str, Any]], str | None]
"""A function that returns the recipe that a stored configuration belongs to, if that is certain."""


def check_run_folder(config: TrainConfig, recipe_of: RecipeOf) -> None:
    """Raise BadInput if `--out` or `--checkpoints` is a dataset or a run of another recipe.

    Other files in a folder that has no run yet are a warning. `recipe_of` is used for runs of
    older versions, which did not record their recipe.
    """
    out = Path(config.out)
    if out.exists() and not out.is_dir():
        raise BadInput(f"--out {out}: not a folder but a file; give another --out")
    _check_kinds(out)
    _check_no_dataset("--out", Storage(out))
    checkpoints = checkpoint_storage(out, config.checkpoints)
    if config.checkpoints is not None:
        _check_no_dataset("--checkpoints", checkpoints)
    run = _run_of(out)
    if run is not None:
        _check_recipe(f"--out {out}", run.get("recipe") or recipe_of(run["config"]), config)
    elif out.is_dir() and (others := _other_entries(out)):
        _log.warning(
            "--out %s: contains %s that no run wrote: %s",
            *(out, _count(len(others)), others[0] + (", ..." if len(others) > 1 else "")),
        )
    for name in checkpoint_names(checkpoints)[:1]:
        checkpoint = read_checkpoint(checkpoints, name)
        if checkpoint is not None:
            manifest = checkpoint.manifest
            _check_recipe(checkpoint.uri, manifest.recipe or recipe_of(manifest.config), config)


def _run_of(out: Path) -> dict[str, Any] | None:
    """Return the record of a run; a damaged one is a warning, because this start replaces it."""
    try:
        return read_run(out)
    except Damaged:
        _log.warning("%s: damaged; this start writes it anew", out / RUN_FILE)
        return None


def _check_recipe(where: str, found: str | None, config: TrainConfig) -> None:
    if found and found != config.recipe:
        raise BadInput(
            f"{where}: is of a run of the recipe {found}, not {config.recipe}; give another folder"
        )


def _check_kinds(out: Path) -> None:
    """Raise BadInput if a folder is in the place of a file of the run, or the other way round."""
    wrong = [out / name for name in sorted(_RUN_FILES) if (out / name).is_dir()]
    wrong += [
        out / name
        for name in sorted(_RUN_FOLDERS)
        if os.path.lexists(out / name) and not (out / name).is_dir()
    ]
    if wrong:
        what = "folder" if wrong[0].name in _RUN_FILES else "file"
        raise BadInput(
            f"--out {out}: {wrong[0].name} of the run may not be a {what}; restore it, or delete "
            f"it: rm -r {shlex.quote(str(wrong[0]))}"
        )


def _check_no_dataset(option: str, storage: Storage) -> None:
    """Raise BadInput if a folder is the root of a dataset or inside one."""
    for uri in _with_parents(storage):
        # A parent may be unreadable with the rights for the folder itself.
        with contextlib.suppress(ValueError, KeyError, TypeError, *storage_errors()):
            json.loads(Storage(uri).read(FORMAT_FILE))["format"]
            raise BadInput(
                f"{option} {storage.uri}: {uri} is a dataset, and a run's files do not belong in "
                f"it; give a folder outside"
            )


def _with_parents(storage: Storage) -> Iterator[str]:
    """Yield the URI of a folder and those of the folders that it is in."""
    if storage.is_local:
        yield from map(str, [Path(storage.uri), *Path(storage.uri).parents])
        return
    scheme, _, path = storage.uri.partition("://")
    parts = path.split("/")
    for end in range(len(parts), 0, -1):
        yield f"{scheme}://{'/'.join(parts[:end])}"


def _other_entries(out: Path) -> list[str]:
    """Return the names of files and folders that no start of a run creates, without hidden ones.

    A start that failed early leaves files, too, but no record of the run.
    """
    names = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    return sorted(names - _RUN_FILES - _RUN_FOLDERS)


def _count(number: int) -> str:
    return "1 file or folder" if number == 1 else f"{number} files or folders"


_RUN_FILES = frozenset(
    {
        *("init.json", "loggers.json", "metrics.jsonl", "owner", "replaced.jsonl", RUN_FILE),
        *("run_state.json", "skipped.jsonl", "stop", "validation.jsonl"),
    }
)
_RUN_FOLDERS = frozenset(
    {
        *("checkpoints", "checkpoints-in-transit", "hangs", "mlflow", "previews", "ray"),
        *("tensorboard", "wandb"),
    }
)
"""Names in the folder of a run."""
