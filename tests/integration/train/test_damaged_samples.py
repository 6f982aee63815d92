"""Damaged samples: the replacements by a fixed rule on any number of ranks, and the limit."""

import dataclasses
import re
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.errors import FinalFailure, WorkFailed
from core.storage import Storage
from dataset.snapshots.snapshot import open_snapshot
from tests.support.tiny_recipe import make_config, run_group
from train.data.loader import make_loader
from train.data.order import candidates_at, sample_at
from train.data.patches import ViewDataConfig, ViewDataset, global_batch
from train.monitoring.metrics_log import REPLACED, read_metrics
from train.monitoring.run_log import RunLog
from train.resilience.damaged_samples import (
    Fault,
    FaultConfig,
    FaultCounter,
    Replacement,
)

SEED, SIZE = 5, 6
CONFIG = ViewDataConfig(
    num_inputs=2, num_targets=1, patch_size=16, target_size_min=16, target_size_max=16
)
DAMAGED = (1, 4)
"""Indices of the damaged ones of the six samples."""
FAULT = Fault(7, "objaverse:a", "shards/a.tar", "fails its checksum")


def copy_damaged(dataset, folder: Path, damaged=DAMAGED) -> tuple[Storage, str]:
    """Copy the dataset, with one byte flipped in every colour picture of the damaged samples."""
    root, snapshot = dataset
    shutil.copytree(root.uri, folder)
    samples = open_snapshot(root, snapshot).samples
    path = folder / samples[0].shard
    data = bytearray(path.read_bytes())
    for index in damaged:
        entry = samples[index].entry
        for name, start, size in zip(entry.members, entry.offsets, entry.sizes, strict=True):
            if name.endswith("rgba.webp"):
                data[start + size // 2] ^= 255
    path.write_bytes(data)
    return Storage(str(folder)), snapshot


def open_views(dataset, samples=None) -> ViewDataset:
    root, snapshot = dataset
    if samples is None:
        samples = open_snapshot(root, snapshot).samples
    return ViewDataset(root, samples, CONFIG, input_size=20, seed=SEED)


def expected_index(position: int, damaged) -> int:
    return next(i for i in candidates_at(position, SIZE, SEED, SIZE) if i not in damaged)


@given(st.integers(0, 10**6), st.integers(1, 300), st.integers(0, 2**63), st.integers(1, 9))
def test_the_candidates_are_all_different_and_begin_with_the_sample_itself(
    position, size, seed, limit
):
    candidates = list(candidates_at(position, size, seed, limit))
    assert candidates[0] == sample_at(position, size, seed)
    assert len(set(candidates)) == len(candidates) == min(limit, size)
    assert set(candidates) <= set(range(size))


def test_a_replacement_sample_has_the_random_draws_of_the_position(sphere_dataset, tmp_path):
    intact, damaged = (
        open_views(sphere_dataset),
        open_views(copy_damaged(sphere_dataset, tmp_path / "d")),
    )
    samples = open_snapshot(*sphere_dataset).samples
    replaced = set()
    for position in range(2 * SIZE):
        item, replacement = damaged.read(position)
        index = expected_index(position, DAMAGED)
        expected = intact._load(samples[index], position)
        assert item.keys() == expected.keys() == damaged[position].keys()
        assert all(torch.equal(item[name], value) for name, value in expected.items())
        if replacement is not None:
            replaced.add(position)
            assert replacement.replaced_by == samples[index].asset_id
            assert (
                replacement.faults[0].asset_id == samples[sample_at(position, SIZE, SEED)].asset_id
            )
            assert replacement.faults[0].position == position
            assert "fails its checksum" in replacement.faults[0].cause
    assert replaced == {p for p in range(2 * SIZE) if sample_at(p, SIZE, SEED) in DAMAGED}


@pytest.mark.parametrize("damage", ["missing", "truncated", "no member", "no picture"])
def test_every_kind_of_damage_is_detected(sphere_dataset, tmp_path, damage):
    root, snapshot = sphere_dataset
    shutil.copytree(root.uri, tmp_path / "d")
    samples = list(open_snapshot(root, snapshot).samples)
    index = sample_at(0, SIZE, SEED)
    bad = samples[index]
    other = tmp_path / "d/shards/other.tar"
    shutil.copy(tmp_path / "d" / bad.shard, other)
    entry = bad.entry
    if damage == "missing":
        other.unlink()
    elif damage == "truncated":
        other.write_bytes(other.read_bytes()[: entry.offsets[3]])
    elif damage == "no member":
        names = [name.replace("json", "yaml") for name in entry.members]
        entry = dataclasses.replace(entry, members=names)
    else:  # every member reads the bytes of the metadata, and its checksum is valid
        metadata = list(entry.members).index("json")
        columns = (entry.offsets, entry.sizes, entry.crc32)
        offsets, sizes, sums = ([column[metadata]] * len(column) for column in columns)
        entry = dataclasses.replace(entry, offsets=offsets, sizes=sizes, crc32=sums)
    samples[index] = dataclasses.replace(bad, shard="shards/other.tar", entry=entry)
    replacement = open_views((Storage(str(tmp_path / "d")), snapshot), samples).read(0).replacement
    assert replacement is not None
    assert replacement.faults[0].asset_id == bad.asset_id
    assert replacement.faults[0].shard == "shards/other.tar"


def test_a_failing_storage_is_not_damage(sphere_dataset, tmp_path):
    """The storage is missing or fails for every sample: the run ends with a retryable error."""
    root, snapshot = copy_damaged(sphere_dataset, tmp_path / "d")
    dataset = open_views((root, snapshot))
    (tmp_path / "d").rename(tmp_path / "moved")
    with pytest.raises(WorkFailed, match=r"cannot read its views in .*No such file") as error:
        dataset[0]
    assert not isinstance(error.value, FinalFailure)

    class Unreachable(Storage):
        def read_spans(self, *args):
            raise ConnectionResetError("gone")

    samples = open_snapshot(*sphere_dataset).samples
    with pytest.raises(WorkFailed, match=r"cannot read its views in .*gone"):
        open_views((Unreachable(sphere_dataset[0].uri), ""), samples)[0]


def test_bytes_damaged_in_transit_are_read_again(sphere_dataset):
    class Flaky(Storage):
        def read_ranges(self, path, ranges):
            first, *others = super().read_ranges(path, ranges)
            return [bytes(len(first)), *others]

    samples = open_snapshot(*sphere_dataset).samples
    item = open_views((Flaky(sphere_dataset[0].uri), ""), samples)[0]
    expected = open_views(sphere_dataset)[0]
    assert all(torch.equal(item[name], value) for name, value in expected.items())


def test_a_run_ends_if_all_samples_are_damaged(sphere_dataset, tmp_path):
    dataset = open_views(copy_damaged(sphere_dataset, tmp_path / "d", range(SIZE)))
    with pytest.raises(
        FinalFailure, match=r"fails its checksum; no replacement .* 6 samples .*verify"
    ):
        dataset[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_replacement_records_reach_the_batch_complete_and_in_the_order_of_its_items(
    sphere_dataset, tmp_path, workers
):
    """From a loader process and from a thread, with asset ids of any length and script."""
    dataset = open_views(copy_damaged(sphere_dataset, tmp_path / "d"))
    name = "objaverse:\u7acb\u65b9\u4f53" * 60
    dataset._samples = [dataclasses.replace(sample, asset_id=name) for sample in dataset._samples]
    positions = list(range(2 * SIZE))
    (batch,) = make_loader(dataset, [positions], workers)
    expected = [dataset.read(position) for position in positions]
    assert batch.replacements == [
        reading.replacement for reading in expected if reading.replacement
    ]
    assert [record.faults[0].position for record in batch.replacements] == [
        p for p in positions if sample_at(p, SIZE, SEED) in DAMAGED
    ]
    assert {record.replaced_by for record in batch.replacements} == {name}
    for row, (item, _) in enumerate(expected):
        assert all(torch.equal(batch.tensors[key][row], value) for key, value in item.items())


def test_the_log_truncates_a_long_cause(tmp_path):
    long = dataclasses.replace(FAULT, cause="\u00e9" * 400)
    with RunLog(tmp_path, 0) as log:
        log.replaced(3, Replacement([long, FAULT], "b"))
    first, second = read_metrics(tmp_path, REPLACED)
    assert first["cause"] == "\u00e9" * 160
    assert list(second) == ["step", "position", "asset_id", "shard", "cause", "replaced_by"]
    assert second["cause"] == FAULT.cause


def test_the_damaged_share_is_computed_over_a_window_of_the_last_samples(tmp_path):
    config = FaultConfig(max_share=0.25, window=20)  # five steps of four samples
    counter = FaultCounter(config, 4)
    for step in range(9):
        counter.record(1)
        counter.check(step, [Replacement([FAULT], "b")])
    counter = FaultCounter(config, 4, counter.dump())
    counter.record(2)
    with pytest.raises(FinalFailure, match=r"step 9: objaverse:a in shards/a.tar: .*6 of the last"):
        counter.check(9, [Replacement([FAULT], "b")])
    assert counter.replaced == 11


LENIENT = {
    "real_views": True,
    "checkpoint_every": 9,
    "data_faults": {"max_share": 0.9},
    "seed": SEED,
}


@pytest.fixture(scope="module")
def runs(ranks, sphere_dataset, tmp_path_factory) -> Path:
    """Train four runs on a damaged dataset.

    `one` has one rank, `two` has two ranks with a loader worker each, `both` is resumed with two
    ranks after two steps with one. `strict` has the default limit of damaged samples and fails.
    """
    folder = tmp_path_factory.mktemp("faults")
    dataset = copy_damaged(sphere_dataset, folder / "d")
    one = make_config(dataset, folder / "one", 4, **LENIENT)
    two = make_config(
        dataset, folder / "two", 4, loader_workers=1, micro_batch=1, num_workers=2, **LENIENT
    )
    first_half = make_config(dataset, folder / "both", 2, **LENIENT)
    second_half = first_half.model_copy(update={"steps": 4})
    strict = make_config(dataset, folder / "strict", 9, **LENIENT | {"data_faults": {}})
    assert run_group(ranks, 1, [one, first_half]) == ["", ""]
    first, second, problem = run_group(ranks, 2, [two, second_half, strict])
    assert (first, second) == ("", "")
    (folder / "problem").write_text(problem)
    return folder


@pytest.mark.parametrize("run", ["two", "both"])
def test_any_world_size_gives_the_same_batches_and_counts(runs, run):
    expected, rows = read_metrics(runs / "one"), read_metrics(runs / run)
    for name in ("step", "batch", "replaced", "replaced_so_far"):
        assert [row.get(name) for row in rows] == [row.get(name) for row in expected]
    losses = [row["loss"] for row in expected]
    assert [row["loss"] for row in rows] == pytest.approx(losses, abs=1e-6)
    assert read_metrics(runs / run, REPLACED) == read_metrics(runs / "one", REPLACED)


def test_the_logs_name_every_replaced_sample(runs, sphere_dataset):
    samples = open_snapshot(*sphere_dataset).samples
    rows = read_metrics(runs / "one", REPLACED)
    positions = [(step + 1, p) for step in range(4) for p in global_batch(step, 6)]
    first_rows = {(row["step"], row["position"]): row for row in reversed(rows)}
    assert sorted(first_rows) == [p for p in positions if sample_at(p[1], SIZE, SEED) in DAMAGED]
    for (_, position), row in first_rows.items():
        assert row["asset_id"] == samples[sample_at(position, SIZE, SEED)].asset_id
        assert row["replaced_by"] == samples[expected_index(position, DAMAGED)].asset_id
        assert row["shard"] == samples[0].shard
        assert "fails its checksum" in row["cause"]
    assert read_metrics(runs / "one")[-1]["replaced_so_far"] == len(first_rows) == 8


def test_too_many_damaged_samples_end_the_run_with_a_remedy(runs):
    problem = (runs / "problem").read_text()
    # The limit is 1 % of 1000 samples, and 2 of 6 samples are damaged.
    assert re.fullmatch(
        r"FinalFailure: step 6: objaverse:0+[14] in shards/test/spheres.tar: Damaged: .* fails its "
        r"checksum; 12 of the last 1002 samples were damaged, and --data-faults.max-share is 0.01: "
        r"run `lrm verify .*replaced.jsonl lists the samples",
        problem,
    )
    assert read_metrics(runs / "strict")[-1]["replaced_so_far"] == 12
