"""Recipes that need geometry: snapshots without it are refused, samples without it left out."""

import re
from pathlib import Path
from typing import ClassVar

import pytest

from core.errors import BadInput
from core.storage import Storage
from dataset.snapshots.snapshot import Samples, open_snapshot, write_snapshot
from pipelines.cli import main
from tests.support.sphere_datasets import add_sphere_geometry, write_sphere_dataset
from tests.support.tiny_recipe import TinyConfig, make_config
from train.data.order import sample_at
from train.loop.engine import _batch_keys
from train.loop.preflight import preflight
from train.recipes.nerf import NerfTrainConfig

SPLITS = ("train", "train", "validation", "train", "validation", "train")


class SurfaceConfig(TinyConfig):
    """Settings of a recipe that trains on companion geometry."""

    recipe: ClassVar[str] = "surfaces"
    needs_geometry: ClassVar[bool] = True


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, str]:
    return write_sphere_dataset(tmp_path_factory.mktemp("root"), SPLITS, size=8)


def start(root: Storage, snapshot: str, out: Path, kind: type[TinyConfig] = SurfaceConfig, **more):
    config = make_config((root, snapshot), out, 4, validate_every=1, **more)
    return preflight(kind.load(config.dump()))


def numbers(samples) -> list[int]:
    return [int(sample.asset_id[-2:], 16) for sample in samples]


@pytest.mark.parametrize(
    ("with_geometry", "train", "validation", "left_out"),
    [
        (range(6), [0, 1, 3, 5], [2, 4], 0),
        ([0, 2, 3, 4, 5], [0, 3, 5], [2, 4], 1),
        ([1, 2], [1], [2], 4),
        ([0, 1, 3, 5], [0, 1, 3, 5], [], 2),
    ],
)
def test_samples_without_geometry_are_left_out_and_counted(
    root, tmp_path, with_geometry, train, validation, left_out
):
    storage, snapshot = root
    snapshot = add_sphere_geometry(storage, snapshot, with_geometry, 10)
    result = start(storage, snapshot, tmp_path)
    assert numbers(result.samples) == train
    assert numbers(result.validation) == validation
    warnings = list(result.warnings)
    if not validation:
        assert warnings.pop(0).endswith("has companion geometry: this run does not validate")
    if left_out:
        (warning,) = warnings
        assert re.fullmatch(
            rf"snapshot {snapshot}: {left_out} samples? without companion geometry (is|are) left "
            r"out of training and validation; to add it, run `lrm build --root \S+ --geometry`, "
            r"then `lrm snapshot --root \S+`",
            warning,
        )
    else:
        assert warnings == []
    # The order is that of the samples that remain, also in the digest of a batch.
    config = make_config((storage, snapshot), tmp_path, 4)
    keys = [
        f"objaverse-{train[sample_at(position, len(train), 0)]:032x}" for position in range(6, 12)
    ]
    assert _batch_keys(result.samples, config, 1, []) == keys
    # A recipe that does not need geometry uses all samples.
    result = start(storage, snapshot, tmp_path, TinyConfig)
    assert (numbers(result.samples), numbers(result.validation)) == ([0, 1, 3, 5], [2, 4])
    assert result.warnings == []


@pytest.mark.parametrize("with_geometry", [[], [2, 4]])
def test_a_snapshot_without_geometry_for_training_is_refused(root, tmp_path, with_geometry):
    storage, snapshot = root
    snapshot = add_sphere_geometry(storage, snapshot, with_geometry, 10)
    with pytest.raises(BadInput) as error:
        start(storage, snapshot, tmp_path)
    assert str(error.value) == (
        f"snapshot {snapshot} has no companion geometry, which the recipe surfaces trains on: run "
        f"`lrm build --root {storage.uri} --geometry`, then `lrm snapshot --root {storage.uri}`"
    )
    assert start(storage, snapshot, tmp_path, TinyConfig).samples


def test_a_snapshot_without_a_training_split_is_refused_as_before(root, tmp_path):
    storage, snapshot = root
    samples = open_snapshot(storage, add_sphere_geometry(storage, snapshot, range(6), 10)).samples
    only_validation = write_snapshot(storage, samples.of_split("validation"), None)["snapshot"]
    with pytest.raises(BadInput, match="has no sample in its training split"):
        start(storage, only_validation, tmp_path)


@pytest.mark.parametrize("more", [["--dry-run"], ["--address", "none"]])
def test_the_command_refuses_it_before_anything_is_written(
    root, tmp_path, monkeypatch, capsys, more
):
    storage, snapshot = root
    monkeypatch.setattr(NerfTrainConfig, "needs_geometry", True)
    out = tmp_path / "run"
    words = f"train nerf --preset tiny --loss.lpips 0 --root {storage.uri} --snapshot {snapshot}"
    assert main([*words.split(), "--out", str(out), *more]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "no companion geometry" in line
    assert f"`lrm build --root {storage.uri} --geometry`" in line
    assert not out.exists()


def test_a_snapshot_of_format_1_has_no_geometry(root):
    storage, snapshot = root
    table = open_snapshot(storage, snapshot).samples._table
    assert len(Samples(table.drop_columns(["geometry"])).with_geometry()) == 0
