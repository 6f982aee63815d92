"""Samples of Zero123++: targets, and random draws that depend only on the position."""

import functools
from dataclasses import replace

import pytest
import torch
from transformers import CLIPImageProcessor

from core.errors import BadInput
from dataset.format.encoding import decode_rgba
from dataset.format.shards import read_members
from dataset.snapshots.snapshot import open_snapshot
from dataset.views import view_member
from tests.support.sphere_datasets import write_sphere_dataset
from train.data.colours import composite
from train.data.loader import make_loader
from train.data.zero123plus_sheets import (
    SheetDataConfig,
    SheetDataset,
    SheetDraws,
    SheetReader,
)
from train.models.zero123plus.components import pipeline_settings
from train.models.zero123plus.conditioning import extract_query
from train.models.zero123plus.latents import tile_views
from train.models.zero123plus.tiny import tiny_pipeline

SIZES = {"view_size": 32, "query_size_min": 20, "query_size_max": 40}


@pytest.fixture(scope="module")
def spheres(tmp_path_factory):
    return write_sphere_dataset(
        tmp_path_factory.mktemp("spheres"), ["train"] * 4, rig="zero123plus", size=32
    )


@pytest.fixture(scope="module")
def prepare():
    settings = pipeline_settings(tiny_pipeline(0))
    parts = ("feature_extractor_vae", "feature_extractor_clip")
    processors = {part: CLIPImageProcessor.from_dict(dict(settings[part])) for part in parts}
    return functools.partial(extract_query, **processors)


def draws_of(config, batch_size=8, seed=0) -> SheetDraws:
    return SheetDraws(config=config, num_timesteps=1000, batch_size=batch_size, seed=seed)


@pytest.fixture
def dataset(spheres, prepare):
    root, snapshot = spheres
    samples = open_snapshot(root, snapshot).samples

    def make(batch_size=8, seed=0, **changes):
        config = SheetDataConfig.load(SIZES | changes)
        reader = SheetReader(config=config, prepare=prepare, with_alpha=True)
        return SheetDataset(root, samples, draws_of(config, batch_size, seed), reader)

    return make


def test_targets_are_the_views_of_the_rig_on_white_in_order(spheres, dataset):
    root, snapshot = spheres
    item = dataset()[0]
    pictures = {}
    for sample in open_snapshot(root, snapshot).samples:
        names = [view_member(view, "rgba") for view in range(7)]
        members = read_members(root, sample.shard, sample.entry, names)
        pictures[sample.asset_id] = composite([decode_rgba(members[name]) for name in names])
    matches = [rgb for rgb, _ in pictures.values() if torch.equal(rgb[1:], item["views"])]
    assert len(matches) == 1
    sheet = tile_views(item["views"][None])
    assert sheet.shape == (1, 3, 96, 64)
    for view in range(6):
        row, column = divmod(view, 2)
        tile = sheet[0, :, 32 * row : 32 * (row + 1), 32 * column : 32 * (column + 1)]
        assert torch.equal(tile, matches[0][1 + view])
    assert (item["views"][item["alpha"].expand(-1, 3, -1, -1) == 0] == 1).all()
    # White, in the VAE's range, is (1 - 0.5) / 0.8.
    torch.testing.assert_close(item["query"][:, 0, 0], torch.full((3,), 0.625))
    assert item["query"].shape == (3, 16, 16)
    assert item["query_clip"].shape == (3, 28, 28)


def test_random_draws_do_not_depend_on_the_loader_workers(dataset):
    items = dataset()
    position_batches = [[0, 1], [5, 4], [2, 3]]
    for workers in (0, 1):
        for positions, batch in zip(
            position_batches, make_loader(items, position_batches, workers), strict=True
        ):
            for row, position in enumerate(positions):
                item = items[position]
                assert item.keys() == batch.tensors.keys()
                assert all(torch.equal(item[name], batch.tensors[name][row]) for name in item)
    drawn = [(int(items[n]["timestep"]), int(items[n]["seed"])) for n in range(8)]
    assert len(set(drawn)) == 8
    other = dataset(seed=1)
    assert drawn != [(int(other[n]["timestep"]), int(other[n]["seed"])) for n in range(8)]


def test_the_condition_dropout_is_per_sample_or_per_batch(dataset):
    """Only the draws are tested, because reading the pictures of 400 samples would take long."""

    def drops(dropout_per, batch_size=8):
        draws = draws_of(
            SheetDataConfig(condition_dropout=0.3, condition_dropout_per=dropout_per), batch_size
        )
        return torch.stack([draws.at(n)[1]["dropped"] for n in range(400)])

    per_sample, per_batch = drops("sample"), drops("batch", batch_size=4)
    assert 0.2 < per_sample.float().mean() < 0.4
    sample_means = per_sample.view(-1, 4).float().mean(1)
    assert ((sample_means > 0) & (sample_means < 1)).any()
    batch_means = per_batch.view(-1, 4).float().mean(1)
    assert set(batch_means.tolist()) == {0.0, 1.0}
    assert 0.15 < batch_means.mean() < 0.45
    assert bool(dataset(condition_dropout=1.0)[0]["dropped"])
    assert not bool(dataset(condition_dropout=0.0)[0]["dropped"])


def test_the_query_is_read_in_many_sizes_within_the_range(dataset, monkeypatch):
    sides = []
    items = dataset()
    read = SheetReader._pictures
    monkeypatch.setattr(
        SheetReader, "_pictures", lambda *arguments: sides.append(arguments[4]) or read(*arguments)
    )
    for position in range(30):
        items[position]
    queries = sides[::2]
    assert len(set(queries)) > 8
    assert all(20 <= side <= 40 for side in queries)
    assert set(sides[1::2]) == {32}


def test_views_of_another_rig_and_inconsistent_sizes_are_errors(tmp_path, prepare):
    config = SheetDataConfig()
    reader = SheetReader(config=config, prepare=prepare)
    root, snapshot = write_sphere_dataset(tmp_path / "other", ["train"], rig="one2345", size=16)
    (other,) = open_snapshot(root, snapshot).samples
    for sample in (other, replace(other, rig="zero123plus")):
        with pytest.raises(BadInput, match=rf"8 views of rig {sample.rig}.*--rig zero123plus"):
            SheetDataset(root, [sample], draws_of(config), reader)
    with pytest.raises(BadInput, match="query_size_min 9 is above query_size_max 8"):
        SheetDataConfig(query_size_min=9, query_size_max=8).check()
