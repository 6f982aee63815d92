"""Measure the cost of plans, status, lists, filters and commits on many objects.

`python -m benchmarks catalog --folder DIR` creates annotations and captions of a million objects,
and a catalog in which each has passed five stages, with random measurements of realistic form and
size. Then it runs the commands as a user would, each in its own process, and prints seconds, CPU
seconds and peak memory in GB. Files are not listed: there are none, and their versions are read
from a table, as from a hub. docs/notes/scale.md shows the figures of a run.
"""

import csv
import gzip
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from benchmarks.figures import Figure, add_figures, write_figures
from benchmarks.help_text import benchmark_parser
from core.config import canonical_json
from core.failures import FailureKind
from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from dataset.object_record import ObjectRecord
from dataset.root import read_build, write_build
from filters.islands import measure_islands
from pipelines.building.build_config import BuildConfig
from pipelines.building.committer import Committer
from pipelines.building.decide import Decider
from pipelines.building.guard.remembered import read_memory
from pipelines.building.listing import write_parts
from pipelines.building.object_table import latest_of
from pipelines.building.plan import Plan, load_plan
from pipelines.building.projection import projection
from pipelines.building.stages.registry import STAGES
from pipelines.sources import FetchedFile, FetchFailed, SourceObject
from pipelines.sources.skipped_rows import SkippedRows

_PER_PART = 5000
_WORDS = "a wooden chair with four legs and red cushion on carved feet of brass".split()
_TAGS = "wood furniture props game medieval pbr interior lowpoly decoration chair".split()
_STAGES = ("fetch", "inspect", "measure", "render", "pack")


def main() -> None:
    """Create the dataset if it does not exist, measure, change 1 % of it, and measure again."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="folder for about 6 GB of files; kept")
    add("--objects", type=int, default=1_000_000, help="number of objects")
    add("--plan", action="store_true", help="only plan, and print the plan as JSON")
    add_figures(parser)
    args = parser.parse_args()
    if args.plan:
        print(json.dumps(_plan(args.folder).to_dict()))
        return
    if not (args.folder / "ready").exists():
        shutil.rmtree(args.folder, ignore_errors=True)
        write_source(args.folder, args.objects)
        fill(args.folder)
        (args.folder / "ready").touch()
    lrm = [sys.executable, "-m", "pipelines.cli"]
    plan = [sys.executable, "-m", "benchmarks", "catalog", "--folder", str(args.folder), "--plan"]
    root = ["--root", str(args.folder / "root")]
    figures = measure_command("lrm status", [*lrm, "status", *root, "--json"])
    listing = [*lrm, "list", *root]
    figures += measure_command("lrm list, all ids", listing)
    figures += measure_command(
        "lrm list, dropped for a reason", [*listing, "--reason", "low_occupancy"]
    )
    where = ["--where", "measure.thickness > 0.1 and licence = 'by'", "--format", "csv"]
    figures += measure_command("lrm list, a condition, CSV", [*listing, *where])
    figures += measure_command("lrm list, all objects, Parquet", [*listing, "--format", "parquet"])
    figures += measure_command("plan, nothing changed", plan)
    share = ["--filters-only", "--filters.occupancy.min-share"]
    for limit in ("0.12", "0.1"):
        build = [*lrm, "build", *root, *share, limit, "--json"]
        figures += measure_command(f"new threshold {limit}", build)
    change(args.folder)
    figures += measure_command("plan, 1 % changed", plan)
    figures += measure_commits(args.folder)
    scale = f"{args.objects:,} objects"
    write_figures(args.figures, [replace(one, name=f"{scale}: {one.name}") for one in figures])


class Tables:
    """A source without files: it only has a table of their versions."""

    prefix = "objaverse"
    has_captions = False
    is_local = True
    revision = ""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "source"

    def parts(self) -> Mapping[str, str]:
        """Return the revisions of the annotation files by name: time and size."""
        return {
            entry.name: f"{entry.stat().st_mtime_ns}-{entry.stat().st_size}"
            for entry in os.scandir(self._folder / "metadata")
        }

    def files(self, part: str, lvis: bool) -> Mapping[str, str]:
        """Return the versions of a part's files by asset id."""
        return read_json(self._folder / "versions" / part)

    def skipped_rows(self) -> Sequence[SkippedRows]:
        """Return no table: every row can be read."""
        return ()

    def read_part(self, name: str) -> list[SourceObject]:
        """Return the objects of a part."""
        versions = self.files(name, False)
        annotations = read_json(self._folder / "metadata" / name)
        return [
            SourceObject(record=_record(asset_id, annotations[asset_id]), version=version)
            for asset_id, version in versions.items()
        ]

    def fetch(self, path: str, version: str, target: Path, max_bytes: int = 0) -> FetchedFile:
        """Raise FetchFailed, because there is no file."""
        raise FetchFailed(FailureKind.MISSING, f"{path} exists only as a table's row")


def _record(asset_id: str, annotation: Mapping[str, Any]) -> ObjectRecord:
    return ObjectRecord(
        asset_id=asset_id,
        path=f"glbs/{asset_id[-32:]}.glb",
        name=annotation["name"],
        licence=annotation["license"],
        author=annotation["user"]["username"],
        tags=tuple(tag["name"] for tag in annotation["tags"]),
        categories=(),
        caption=None,
        age_restricted=annotation["isAgeRestricted"],
    )


def read_json(path: Path) -> Any:
    """Read a compressed JSON file."""
    return json.loads(gzip.decompress(path.read_bytes()))


def write_json(path: Path, value: Any) -> None:
    """Write a compressed JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(value).encode(), compresslevel=1))


def write_source(folder: Path, count: int) -> None:
    """Write annotations, versions and captions of `count` objects."""
    started = time.monotonic()
    random.seed(1)
    with open(_with_parent(folder / "captions.csv"), "w", newline="") as file:
        captions = csv.writer(file, lineterminator="\n")
        for number in range(-(-count // _PER_PART)):
            uids = sorted(f"{random.getrandbits(128):032x}" for _ in range(_PER_PART))
            captions.writerows([uid, " ".join(random.choices(_WORDS, k=12))] for uid in uids)
            _write_part(folder, f"000-{number:03d}.json.gz", uids)
    print(f"source: {time.monotonic() - started:.0f} s", flush=True)


def _with_parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write_part(folder: Path, name: str, uids: list[str]) -> None:
    write_json(folder / "source/versions" / name, {f"objaverse:{uid}": "1" for uid in uids})
    annotations = {f"objaverse:{uid}": _annotation(uid) for uid in uids}
    write_json(folder / "source/metadata" / name, annotations)


def _annotation(uid: str) -> dict[str, Any]:
    """Return a random annotation of the length of Objaverse's."""
    return {
        "uid": uid,
        "name": f"Thing {uid[:6]}",
        "license": random.choice(["by", "by", "by", "by-nc", "cc0"]),
        "user": {"username": f"author{uid[:3]}", "profileUrl": f"https://example.org/{uid[:3]}"},
        "tags": [{"name": name, "slug": name} for name in random.sample(_TAGS, 5)],
        "categories": [{"name": "furniture-home"}],
        "description": " ".join(random.choices(_WORDS, k=60)),
        "viewerUrl": f"https://example.org/3d-models/{uid}",
        "isAgeRestricted": False,
        "archives": {"glb": {"size": 1_000_000, "faceCount": 10_000, "textureCount": 3}},
    }


def change(folder: Path) -> None:
    """Change 1 % of the objects.

    New captions, new versions and removed objects are spread over all parts; new objects are in a
    new part.
    """
    random.seed(time.time_ns())
    versions = {path: read_json(path) for path in (folder / "source/versions").iterdir()}
    objects = [(path, asset_id) for path, listing in versions.items() for asset_id in listing]
    chosen = random.sample(objects, len(objects) // 100)
    tenth = len(chosen) // 10
    recaptioned = {asset_id[-32:] for _, asset_id in chosen[: 4 * tenth]}
    for path, asset_id in chosen[4 * tenth : 7 * tenth]:
        versions[path][asset_id] = str(time.time_ns())
    for path, asset_id in chosen[7 * tenth : 8 * tenth]:
        del versions[path][asset_id]
    for path, listing in versions.items():
        write_json(path, listing)
    new = sorted(f"{random.getrandbits(128):032x}" for _ in range(2 * tenth))
    _write_part(folder, f"001-{len(versions):03d}.json.gz", new)
    with open(folder / "captions.csv", newline="") as file:
        rows = list(csv.reader(file))
    rows = [[uid, "another " * (uid in recaptioned) + text] for uid, text in rows]
    rows += [[uid, "a new thing"] for uid in new]
    with open(folder / "captions.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    print(f"changed {len(chosen):,} of {len(objects):,} objects", flush=True)


def _config(folder: Path) -> BuildConfig:
    captions, root = str(folder / "captions.csv"), str(folder / "root")
    config = BuildConfig(source=str(folder / "source"), captions=captions, root=root)
    stored = Storage(root)
    return BuildConfig.load(read_build(stored)["config"]) if stored.exists("") else config.checked()


def _plan(folder: Path) -> Plan:
    config = _config(folder)
    root = Storage(config.root)
    return load_plan(config, Tables(folder), root, latest_of(root), read_memory(root))


def fill(folder: Path) -> None:
    """Write a root in which every object has passed five stages."""
    started = time.monotonic()
    config = _config(folder)
    root = Storage(config.root)
    catalog = Catalog(root)
    latest = latest_of(root, catalog)
    plan = _plan(folder)
    print(f"first plan: {time.monotonic() - started:.0f} s", flush=True)
    write_build(root, {"config": config.dump(), "captions_revision": plan.captions_revision})
    committer = Committer(catalog, latest, config.execution)
    committer.add_all(plan.listing.events())
    committer.close()
    write_parts(root, config, plan.listing)
    print(f"listed: {time.monotonic() - started:.0f} s", flush=True)
    ids = plan.objects.ids.combine_chunks()
    decider = Decider(config)
    settings = {stage.name: decider.identities.settings(stage) for stage in STAGES}
    del plan
    templates = {stage: [stage_data(stage) for _ in range(2000)] for stage in _STAGES}
    rows_by_stage: dict[str, list[pa.Table]] = {stage: [] for stage in _STAGES}
    for start in range(0, len(ids), 50_000):
        for stage in _STAGES:
            batch_ids = ids.slice(start, 50_000)
            seq = catalog.last_seq()
            identity = (decider.stage_rigs[stage][1], settings[stage])
            rows, chosen_templates = _rows(batch_ids, stage, identity, templates[stage], seq)
            write_deltalake(f"{root.uri}/catalog", rows, mode="append")
            rows_by_stage[stage].append(_projected(stage, rows, templates[stage], chosen_templates))
    catalog.compact()
    tables = {
        decider.stage_rigs[stage]: pa.concat_tables(stage_rows)
        for stage, stage_rows in rows_by_stage.items()
    }
    latest.write(tables, catalog.last_seq(), catalog.files())
    print(f"catalog: {time.monotonic() - started:.0f} s", flush=True)


def _projected(
    stage: str, rows: pa.Table, templates: list[str], chosen_templates: np.ndarray
) -> pa.Table:
    """Return the columns that an update of `latest/` derives from these rows.

    Each template is parsed only once.
    """
    columns = projection()
    schema = columns.schema(stage)
    parsed = [columns.read(stage, "ok", json.loads(text)) for text in templates]
    table = pa.Table.from_pylist(parsed, schema=schema).take(pa.array(chosen_templates))
    for name in rows.column_names:
        if name in schema.names:
            index = schema.get_field_index(name)
            table = table.set_column(
                index, schema.field(name), rows[name].cast(schema.field(name).type)
            )
    if stage == "fetch":
        shas = pa.array([f"{i[-32:]}{i[-32:]}" for i in rows["asset_id"].to_pylist()])
        table = table.set_column(schema.get_field_index("sha256"), schema.field("sha256"), shas)
    return table


def _rows(
    ids: pa.Array, stage: str, identity: tuple[str, str], templates: list[str], seq: int
) -> tuple[pa.Table, np.ndarray]:
    """Return the catalog's rows for a stage of many objects, and the index of each row's template.

    `identity` are the columns rig and settings of the events.
    """
    count = len(ids)
    rng = np.random.default_rng(seq)
    shas = [f"{asset_id[-32:]}{asset_id[-32:]}" for asset_id in ids.to_pylist()]
    chosen_templates = rng.integers(len(templates), size=count)
    data = [templates[i] for i in chosen_templates]
    if stage == "fetch":
        data = [text.replace("SHA", sha) for text, sha in zip(data, shas, strict=True)]
    now = datetime.now(UTC)
    columns = {
        "seq": np.arange(count) + seq,
        "time": pa.array([now] * count, pa.timestamp("us", tz="UTC")),
        "run": ["benchmark"] * count,
        "asset_id": ids,
        "stage": [stage] * count,
        "rig": [identity[0]] * count,
        "content": ["1"] * count if stage == "fetch" else shas,
        "settings": [identity[1]] * count,
        "status": ["ok"] * count,
        "kind": [""] * count,
        "message": [""] * count,
        "data": data,
        "seconds": rng.uniform(0.1, 40, count),
    }
    return pa.table(columns), chosen_templates


def stage_data(stage: str) -> str:
    """Return random data of a stage as JSON, in its real form and size."""
    timings = {part: random.random() for part in ("import", "evaluate", "measure", "islands")}
    texture = {"image": 0, "source": "core", "width": 1024, "height": 1024, "triangles": 5000}
    maps = [texture | {"state": random.choice(["detailed", "detailed", "flat"])}]
    coverage = [round(random.uniform(0.099, 0.6), 6) for _ in range(32)]
    data_by_stage: dict[str, dict[str, Any]] = {
        "fetch": {"sha256": "SHA", "bytes": 10**6, "raw": None},
        "inspect": {"num_triangles": 9000, "base_colour_maps": maps, "num_nodes": 12},
        "measure": {"coverage": coverage, "thickness": 0.5, "timings": timings} | _islands(),
        "render": {
            "coverage": coverage,
            "bytes": 3 * 10**6,
            "timings": timings,
            "staging": "s/x.tar",
        },
        "pack": {"shard": f"shards/lrm32/{random.getrandbits(12):x}.tar", "sample": "objaverse-x"},
    }
    return canonical_json(data_by_stage[stage])


def _islands() -> dict[str, Any]:
    """Return a random islands measurement of blobs of points, computed at the first call."""
    if not _BLOBS:
        rng = np.random.default_rng(1)
        for _ in range(20):
            centres = rng.uniform(-0.8, 0.8, (rng.integers(1, 9), 3))
            points = centres[rng.integers(len(centres), size=4000)]
            points = points + rng.normal(0, 0.05, (4000, 3))
            _BLOBS.append(measure_islands(points.clip(-1, 1)))
    return {"islands": random.choice(_BLOBS)}


_BLOBS: list[dict[str, Any]] = []


def measure_command(name: str, command: list[str]) -> list[Figure]:
    """Run a command in its own process, and print its time, its peak memory and its output.

    Raises SystemExit if it fails.
    """
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    output_text = process.stdout.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - started
    cpu_seconds, gigabytes = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6
    code = process.returncode
    print(f"{name}: {seconds:.1f} s, {cpu_seconds:.1f} CPU s, {gigabytes:.2f} GB, exit code {code}")
    output = output_text.strip()[:300]
    print(textwrap.fill(output, 100, initial_indent="  ", subsequent_indent="  "), flush=True)
    if process.returncode:
        raise SystemExit(f"{name} failed with exit code {code}; its output is above")
    memory = Figure(f"{name}, peak memory", gigabytes, "GB")
    return [Figure(name, seconds, "s"), memory]


def measure_commits(folder: Path) -> list[Figure]:
    """Measure commits of 1,000 events to an empty table and to the full one."""
    shutil.rmtree(folder / "empty", ignore_errors=True)
    data = json.loads(stage_data("measure"))
    figures = []
    for name, root in (("an empty table", "empty"), ("the full one", "root")):
        catalog = Catalog(Storage(str(folder / root)))
        seconds = []
        for batch in range(1, 31):
            events = [Event(asset_id=f"b:{i}", stage="measure", data=data) for i in range(1000)]
            started = time.monotonic()
            catalog.commit(events, f"benchmark-{os.getpid()}", batch)
            seconds.append(time.monotonic() - started)
        median, longest = statistics.median(seconds), max(seconds)
        print(f"1,000 events to {name}: median {median:.3f} s, maximum {longest:.3f} s", flush=True)
        figures.append(Figure(f"1,000 events to {name}, median", median, "s"))
    return figures
