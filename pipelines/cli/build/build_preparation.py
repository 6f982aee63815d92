"""What `lrm build` and `lrm plan` find out before anything is written."""

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from core.errors import BadInput
from core.storage import Storage
from dataset.catalog.event_log import Catalog
from dataset.catalog.latest import LatestEvents
from pipelines.building.build_config import BuildConfig
from pipelines.building.guard.comparison import Comparison
from pipelines.building.guard.former_listing import with_former_listing
from pipelines.building.guard.remembered import Memory
from pipelines.building.object_table import latest_of
from pipelines.building.plan import Plan, load_plan
from pipelines.cli.build.build_settings import BuildSettings
from pipelines.cli.tables import print_warnings
from pipelines.sources import Source, open_source

__all__ = ["Preparation", "prepare"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Preparation:
    """The settings of a build, and its plan under them."""

    config: BuildConfig
    memory: Memory
    """What the dataset remembers of the builds before."""
    root: Storage
    source: Source
    catalog: Catalog
    latest: LatestEvents
    plan: Plan
    comparison: Comparison

    def lines(self) -> list[str]:
        """Return a line for each change since the last build: of the listing, then of settings."""
        return [*self.plan.notes(), *self.comparison.changes.lines()]

    def check(self, arguments: argparse.Namespace) -> None:
        """Raise BadInput if the build would lose or redo much that it was not told to."""
        self.plan.losses.check(arguments.accept_loss)
        self.comparison.changes.check(arguments.accept_changes)

    def to_dict(self, arguments: argparse.Namespace) -> dict[str, Any]:
        """Return the JSON of `lrm plan --json`, with what its options accept."""
        changes = self.comparison.changes.to_dict(arguments.accept_changes)
        return self.plan.to_dict(arguments.accept_loss) | {"changes": changes}


def prepare(settings: BuildSettings) -> Preparation:
    """Return the settings and the plan of a build, and print the warnings about them.

    Raises BadInput for settings, a source or a root that cannot be used.
    """
    memory = settings.memory()
    config = settings.config(memory)
    root = Storage(config.root)
    catalog = Catalog(root)
    latest = latest_of(root, catalog)
    with _naming_remembered(settings, config):
        source = open_source(config.source, config.fetch, config.captions)
        plan = load_plan(config, source, root, latest, memory)
    comparison = Comparison(
        config,
        memory.of(config.rig),
        decisions=plan.decisions,
        rows=plan.rows,
        estimate=plan.estimate,
        former=memory.configs,
        columns_before=lambda: with_former_listing(plan.objects, plan.listing).columns,
    )
    notes = settings.notes(config, memory, latest.stage_rigs())
    print_warnings(settings.command, [*notes, *plan.warnings()])
    return Preparation(
        config=config,
        memory=memory,
        root=root,
        source=source,
        catalog=catalog,
        latest=latest,
        plan=plan,
        comparison=comparison,
    )


@contextlib.contextmanager
def _naming_remembered(settings: BuildSettings, config: BuildConfig) -> Iterator[None]:
    """Say where the name of a source or captions file comes from if an error is about it.

    Their errors start with that name.
    """
    try:
        yield
    except BadInput as error:
        for name in ("captions", "source"):
            value = getattr(config, name)
            if value and name not in settings.given and f"{error}".startswith(f"{value}: "):
                hint = f"the dataset remembers the {name} {value}: give --{name} if that has moved"
                raise BadInput(f"{error} ({hint})") from None
        raise
