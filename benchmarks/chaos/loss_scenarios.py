"""The commands that lose power, each with the commands that prepare its dataset."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from pipelines.building.dataset_status import load_dataset_state
from pipelines.demo.demo_mirror import CAPTIONS_FILE
from tests.support.datasets import QUICK
from tests.support.lrm import run_lrm

__all__ = ["FEW", "SCENARIOS", "Disk", "Scenario"]

FEW, _MORE = "7", "10"
"""Objects of the first build, and of the second one."""
_COMMITS = 101
"""More commits than a catalog has files after a build, so that the build merges them."""


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A folder that may lose power, with the dataset `root` and the folder `out`, and a source."""

    folder: Path
    source: Path

    @property
    def root(self) -> Path:
        """The root of the dataset."""
        return self.folder / "root"

    def words(self, command: str) -> list[str]:
        """Return the words of a command of `lrm` from a line with `{}` for variable parts."""
        name, _, rest = command.partition(" ")
        texts = {
            "out": str(self.folder / "out"),
            "object": self._kept if "{object}" in rest else "",
        }
        words = [name, "--root", str(self.root), *rest.format(**texts).split()]
        if name == "build":
            captions = str(self.source / CAPTIONS_FILE)
            words += ["--source", str(self.source), "--captions", captions, *QUICK]
        return words

    @property
    def _kept(self) -> str:
        """The first object that has a sample, also if it was removed."""
        kept = load_dataset_state(Storage(str(self.root))).kept
        return min(state.asset_id for state in kept)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A command that loses power, and what it starts from."""

    command: str
    before: Sequence[str] = (f"build --limit {FEW}",)
    """Commands that prepare the dataset."""
    commits: int = 0
    """Commits that are added to the catalog afterwards."""
    damage: str = ""
    """Pattern of files below the root; the last of them is then cut to half."""
    again: int = 0
    """Exit code of the same command after it was done."""
    every: int = 1
    """Distance in steps between two losses."""
    then: Sequence[str] = ()
    """Commands that follow before the result is compared."""

    def prepare(self, disk: Disk) -> list[str]:
        """Prepare the dataset; return the words of the command."""
        disk.folder.mkdir(parents=True)
        for command in self.before:
            answer = run_lrm(*disk.words(command))
            if answer.code != 0:
                raise RuntimeError(f"{command}: {answer.err}")
        catalog = Catalog(Storage(str(disk.root)))
        for number in range(self.commits):
            catalog.commit([Event(asset_id="objaverse:none", stage="remove")], f"{number}", 1)
        return disk.words(self.command)

    def spoil(self, disk: Disk) -> None:
        """Damage the prepared dataset."""
        if self.damage:
            path = max(disk.root.glob(self.damage))
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


_BUILD, _SNAPSHOT, _REMOVE = f"build --limit {FEW}", "snapshot --name first", "remove {object}"
SCENARIOS = {
    "build": Scenario(command=_BUILD, before=()),
    "refresh": Scenario(command=f"build --limit {_MORE}"),
    "build that merges commits": Scenario(command=f"build --limit {_MORE}", commits=_COMMITS),
    "remove": Scenario(command=_REMOVE),
    "retry": Scenario(command="retry --kind malformed"),
    "compact": Scenario(command="compact", before=(_BUILD, _REMOVE)),
    "snapshot": Scenario(command=_SNAPSHOT),
    "second snapshot": Scenario(
        command="snapshot --name second", before=(_BUILD, _SNAPSHOT, _REMOVE)
    ),
    "same snapshot": Scenario(command="snapshot --name again", before=(_BUILD, _SNAPSHOT)),
    "delete snapshot": Scenario(
        command="snapshot --delete first --force", before=(_BUILD, _SNAPSHOT), again=2
    ),
    "verify": Scenario(command="verify", damage="shards/*/*.tar", then=(_BUILD,), again=1),
    "repair": Scenario(
        command="repair", before=(_BUILD, _REMOVE), damage="catalog/_delta_log/*.json"
    ),
    "export": Scenario(
        command="export --snapshot first --layout instantmesh --out {out} --split all --workers 1",
        before=(_BUILD, _SNAPSHOT),
        every=60,  # hundreds of files, each of which takes two steps
    ),
}
