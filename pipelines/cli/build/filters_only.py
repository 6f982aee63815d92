"""`lrm build --filters-only`: other filters for what the catalog holds, without a build."""

import argparse

from core.errors import BadInput
from core.lock import exclusive_lock
from core.storage import Storage
from dataset.root import open_root
from pipelines.building.build_config import BuildConfig
from pipelines.building.guard.remembered import Memory, differences
from pipelines.building.progress import print_when_waiting
from pipelines.building.records.build_record import store_filters
from pipelines.cli.build.build_settings import BuildSettings

__all__ = ["apply_filters"]


def apply_filters(arguments: argparse.Namespace) -> Storage:
    """Store other filter settings; return the dataset."""
    settings = BuildSettings(arguments)
    if "root" not in settings.given:
        raise BadInput("--filters-only needs --root")
    root = open_root(str(settings.given["root"]))
    on_wait = print_when_waiting(arguments.wait)
    with exclusive_lock(root, "lrm build --filters-only", on_wait=on_wait):
        memory = settings.memory()
        config = settings.config(memory)
        _check_only_filters(config, memory)
        store_filters(root, config, memory)
    return root


def _check_only_filters(config: BuildConfig, memory: Memory) -> None:
    """Raise BadInput if settings differ that decide what is built."""
    if config.rig not in memory.rigs:
        raise BadInput(
            f"--filters-only: the dataset has no build with the rig {config.rig}, only with "
            f"{', '.join(memory.rigs)}"
        )
    changed = differences(memory.rigs[config.rig].config, config)
    others = [path for path in changed if not path.startswith("filters.")]
    if others:
        raise BadInput(
            "--filters-only changes only filters, but these settings differ, too: "
            f"{', '.join(others)}"
        )
