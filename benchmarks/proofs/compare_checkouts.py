"""Check that this checkout and another one produce the same data, byte for byte.

`python -m benchmarks compare_checkouts --other CHECKOUT --source MIRROR --work DIR` runs the
command lines of both checkouts on the same models: build, snapshot, export and training. It
compares the bytes of shards, indexes, geometry, snapshots and exports, the identities of events,
and losses and weights. Then this checkout continues with the data of the other one: its plan must
list no work, and its trainings must continue with the same losses. Times of events are not
compared. It prints the number of comparisons and of differences of each kind, and exits with 1 if
there is a difference. It takes about four minutes on two cores.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.numpy
from deltalake import DeltaTable

from benchmarks.help_text import benchmark_parser

__all__ = ["Side", "compare", "main"]

REPOSITORY = Path(__file__).resolve().parents[2]
_QUICK = (
    "--address none --render.resolution 96 --render.samples 2 --shards.samples-per-shard 4 "
    "--filters.caption.enabled false"
)
_DATASETS = {
    "lrm": "--rig lrm32 --geometry --surface.points 2000",
    "sheets": "--rig zero123plus --limit 24",
}
"""Build options of the two datasets, one for each rig that the recipes need."""
_STEPS, _MORE_STEPS = 10, 12
_EVERY_RUN = (
    "--preset tiny --address none --checkpoint-every 5 --preview-every 0 --validate-every 5 "
    "--tensorboard false --optimizer.schedule-steps 20"
)
_LRM = "--batch-size 2 --loss.lpips 0 --data.num-inputs 2 --data.num-targets 1"
_RECIPES = {
    "nerf": f"{_LRM} --data.patch-size 16 --data.target-size-min 24 --data.target-size-max 32",
    "mesh": f"{_LRM} --data.frame-size 32",
    "zero123plus": "--batch-size 2 --data.view-size 16 --data.query-size-min 20 "
    "--data.query-size-max 32 --sample.steps 2 --ema 0.5",
}
_EVENT_IDENTITY = ("asset_id", "stage", "rig", "content", "settings", "status", "kind")
_RUN_COMMANDS = """
import json, runpy, sys
for words in json.loads(sys.argv[1]):
    sys.argv = ["lrm", *words]
    try:
        runpy.run_module("pipelines.cli", run_name="__main__")
    except SystemExit as end:
        assert not end.code, (words, end.code)
"""
_TIMES = {"created", "protected_until"}
_MACHINE_METRICS = ("seconds", "time", "per_second", "goodput", "memory", "utilisation", "share")
"""Parts of the names of metrics that depend on the machine; these are not compared."""


@dataclass(frozen=True)
class Side:
    """A checkout, and the folder for its results."""

    checkout: Path
    work: Path

    def run(self, *words: object) -> str:
        """Run `lrm` from the checkout; return its standard output."""
        return self._python("-m", "pipelines.cli", *words)

    def run_all(self, commands: Sequence[Sequence[str]]) -> list[str]:
        """Run `lrm` commands in one process; return the lines of their output."""
        return self._python("-c", _RUN_COMMANDS, json.dumps(commands)).splitlines()

    def _python(self, *words: object) -> str:
        command = [sys.executable, *map(str, words)]
        environment = os.environ | {"PYTHONPATH": str(self.checkout), "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        process = subprocess.run(
            command,
            cwd=self.checkout,
            env=environment,
            stdout=pipe,
            stderr=pipe,
            text=True,
            check=False,
        )
        if process.returncode:
            raise RuntimeError(
                f"{self.checkout}: {' '.join(command[1:])}: {process.stderr[-2000:]}"
            )
        return process.stdout

    def build_words(self, name: str, source: Path) -> list[str]:
        """Return the options of a dataset's build, with the captions file of the source if any."""
        words = ["--source", str(source), *_QUICK.split(), *_DATASETS[name].split()]
        captions = next(source.glob("*.csv"), None)
        return words if captions is None else [*words, "--captions", str(captions)]

    def train(self, recipe: str, steps: int, data: Path, out: Path) -> None:
        """Train a recipe up to a step; an existing run is resumed."""
        dataset = data / ("sheets" if recipe == "zero123plus" else "lrm")
        snapshot = json.loads((dataset.with_suffix(".snapshot.json")).read_text())["snapshot"]
        run_options = ["--root", dataset, "--snapshot", snapshot, "--out", out, "--steps", steps]
        model = ["--model", "{mesh: {grid_resolution: 16}}"] if recipe == "mesh" else []
        self.run(
            "train", recipe, *run_options, *_EVERY_RUN.split(), *_RECIPES[recipe].split(), *model
        )


def produce(side: Side, source: Path) -> None:
    """Build, snapshot, export and train with one checkout."""
    side.work.mkdir(parents=True)
    for name in _DATASETS:
        root = side.work / name
        side.run("build", *side.build_words(name, source), "--root", root)
        root.with_suffix(".snapshot.json").write_text(
            side.run("snapshot", "--root", root, "--json")
        )
    snapshot = json.loads((side.work / "lrm.snapshot.json").read_text())["snapshot"]
    for layout in ("instantmesh", "trellis"):
        export_options = ["--root", side.work / "lrm", "--snapshot", snapshot, "--layout", layout]
        side.run("export", *export_options, "--out", side.work / "exports" / layout, "--workers", 1)
    for recipe in _RECIPES:
        side.train(recipe, _STEPS, side.work, side.work / "runs" / recipe)
    for recipe in ("nerf", "mesh"):
        run = side.work / "runs" / recipe
        side.run("weights", "--run", run, "--out", run.with_suffix(".safetensors"))


@dataclass
class Comparison:
    """The number of comparisons by kind, and the differences."""

    counts: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    def check(self, kind: str, actual: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
        """Compare two mappings key by key; an empty reference is a difference."""
        self.counts[kind] = len(reference)
        if not reference:
            self.differences.append(f"{kind}: there is nothing to compare")
        for name in sorted(actual.keys() | reference.keys()):
            if name not in actual or name not in reference or actual[name] != reference[name]:
                self.differences.append(f"{kind}: {name}")


def files(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): _without_times(path) for path in paths}


def _without_times(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix != ".json":
        return data
    values = json.loads(data)
    kept = {key: value for key, value in values.items() if key not in _TIMES}
    return json.dumps(kept, sort_keys=True).encode()


def events(root: Path) -> dict[str, tuple[str, ...]]:
    """Return the identity of the last event of every object and stage."""
    table = DeltaTable(str(root / "catalog")).to_pyarrow_table()
    rows = sorted(table.to_pylist(), key=lambda row: row["seq"])
    return {
        f"{row['asset_id']} {row['stage']}": tuple(row[name] for name in _EVENT_IDENTITY)
        for row in rows
    }


def metrics(run: Path) -> dict[str, Any]:
    """Return the logged metrics of every step, without those that depend on the machine."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {f"step {row['step']}": dict(_training_metrics(row)) for row in rows}


def _training_metrics(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if not any(part in name for part in _MACHINE_METRICS):
            yield name, value


def weights(path: Path) -> dict[str, bytes]:
    """Return every tensor of a weight file as bytes."""
    return {name: value.tobytes() for name, value in safetensors.numpy.load_file(path).items()}


def states(side: Side, root: Path) -> dict[str, Any]:
    """Return the state of every object of a dataset, from `status` and `inspect` of a checkout."""
    status = json.loads(side.run("status", "--root", root, "--json"))
    result = {name: status[name] for name in ("listed", "kept", "dropped", "failed", "pending")}
    ids = sorted({name.split()[0] for name in events(root)})
    commands = [["inspect", "--root", str(root), "--json", asset_id] for asset_id in ids]
    for asset_id, line in zip(ids, side.run_all(commands), strict=True):
        shown = json.loads(line)
        result[asset_id] = [shown["state"], shown["measurements"], shown["samples"]]
    return result


def compare(this: Side, other: Side, source: Path) -> Comparison:
    """Compare the results of two checkouts, then continue with the other's data in this one."""
    comparison = Comparison()
    for name in _DATASETS:
        for part in ("shards", "geometry", "snapshots"):
            folders = [side.work / name / part for side in (this, other)]
            if any(folder.exists() for folder in folders):
                comparison.check(f"{name}: {part}", *map(files, folders))
        comparison.check(f"{name}: events", *(events(side.work / name) for side in (this, other)))
    comparison.check("exports", *(files(side.work / "exports") for side in (this, other)))
    for recipe in _RECIPES:
        runs = [side.work / "runs" / recipe for side in (this, other)]
        comparison.check(f"{recipe}: losses", *map(metrics, runs))
    for recipe in ("nerf", "mesh"):
        paths = [side.work / "runs" / f"{recipe}.safetensors" for side in (this, other)]
        comparison.check(f"{recipe}: weights", *map(weights, paths))
    _continue_other(comparison, this, other, source)
    return comparison


def _continue_other(comparison: Comparison, this: Side, other: Side, source: Path) -> None:
    copy = this.work / "continued"
    shutil.copytree(other.work, copy)
    for name in _DATASETS:
        words = [*this.build_words(name, source), "--root", copy / name, "--json"]
        plan = json.loads(this.run("plan", *words))
        comparison.check(f"{name}: plan on the other's dataset", _num_planned(plan), {"objects": 0})
    comparison.check("states", states(this, copy / "lrm"), states(other, copy / "lrm"))
    for recipe in _RECIPES:
        run, reference = copy / "runs" / recipe, other.work / "runs" / recipe
        this.train(recipe, _MORE_STEPS, copy, run)
        other.train(recipe, _MORE_STEPS, other.work, reference)
        comparison.check(f"{recipe}: continued losses", metrics(run), metrics(reference))


def _num_planned(plan: Mapping[str, Any]) -> dict[str, int]:
    return {"objects": sum(sum(reasons.values()) for reasons in plan["work"].values())}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; return 1 if there is a difference."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add("--other", type=Path, required=True, metavar="DIR", help="the checkout to compare with")
    add(
        "--source",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of models in Objaverse's layout",
    )
    add(
        "--work",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the results; its subfolders `this` and `other` are deleted first",
    )
    options = parser.parse_args(arguments)
    work = options.work.resolve()
    this = Side(REPOSITORY, work / "this")
    other = Side(options.other.resolve(), work / "other")
    for side in (this, other):
        shutil.rmtree(side.work, ignore_errors=True)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda side: produce(side, options.source.resolve()), (this, other)))
    comparison = compare(this, other, options.source.resolve())
    for kind, count in comparison.counts.items():
        wrong = sum(line.startswith(f"{kind}: ") for line in comparison.differences)
        print(f"{kind:<40} {count:>6} compared, {wrong:>4} differ")
    for line in comparison.differences[:50]:
        print(f"different: {line}")
    print("equal" if not comparison.differences else f"{len(comparison.differences)} differences")
    return int(bool(comparison.differences))
