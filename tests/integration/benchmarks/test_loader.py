"""The loader benchmark: its loaders read the same views, and its figures follow from readings."""

import io

import torch

from benchmarks.speed.loader import (
    OPENCV,
    OURS,
    PILLOW,
    Reading,
    Summary,
    main,
    measure,
    report,
    summarise,
)
from core.storage import Storage
from dataset.format.shards import index_path, scan_tar, write_index, write_tar
from dataset.root import write_build
from dataset.snapshots.snapshot import Sample, write_snapshot
from dataset.views import encode_views
from tests.support.sphere_datasets import sphere_views


def test_a_summary_is_a_median_of_times_and_a_mean_of_bytes():
    readings = [Reading(0.1, 100, 1000), Reading(0.5, 300, 1000), Reading(0.2, 200, 1000)]
    assert summarise(readings) == Summary(per_second=5, num_bytes=200, share=0.2)


def test_the_report_compares_with_the_targets():
    slow, fast = Summary(10, 4096, 0.8), Summary(20, 4096, 0.8)
    text = report({OURS: Summary(30, 1024, 0.2), PILLOW: slow, OPENCV: fast})
    assert "3.00 times the speed of PNG, Pillow" in text
    assert "1.50 times the faster PNG loader (target: at least 2)" in text
    assert "0.20 of the sample's bytes read (target: at most 0.4)" in text


def test_loaders_alternate_and_the_first_round_is_not_counted():
    calls = []

    class Loader:
        def __init__(self, name):
            self.name = name

        def __getitem__(self, position):
            calls.append((self.name, position))

    readings = measure({name: Loader(name) for name in "ab"}, [7, 8], 2)
    assert calls == [("a", 0), ("b", 0), ("a", 1), ("b", 1)] * 3
    assert [reading.sample_bytes for reading in readings["a"]] == [7, 8, 7, 8]


def test_a_small_dataset_is_measured(tmp_path, capsys):
    threads = torch.get_num_threads()
    root = Storage(str(tmp_path))
    views = dict(encode_views(sphere_views(0, 32, 32), {"normalise": "cube"}))
    tar = io.BytesIO()
    write_tar(tar, [("objaverse-a", views)])
    tar.seek(0)
    entries = list(scan_tar(tar))
    root.write("shards/a.tar", tar.getvalue())
    root.write(index_path("shards/a.tar"), write_index(entries, "", len(tar.getvalue())))
    text = {"rig": "test", "sha256": "", "render_key": "", "name": "", "caption": "", "author": ""}
    sample = Sample(
        asset_id="objaverse:a",
        split="train",
        shard="shards/a.tar",
        entry=entries[0],
        licence="by",
        **text,
    )
    write_build(root, {})
    snapshot = write_snapshot(root, [sample], None)["snapshot"]
    sizes = "--samples 1 --rounds 1 --input-size 16 --size 32"
    try:
        main(["--root", str(tmp_path), "--snapshot", snapshot, *sizes.split()])
    finally:
        torch.set_num_threads(threads)
    out = capsys.readouterr().out
    rows = [line.split("|") for line in out.splitlines() if line.startswith("| webdataset")]
    # WebDataset reads whole samples.
    assert [float(row[4]) > 0.9 for row in rows] == [True] * 4
    own_rows = [row.split("|") for row in out.splitlines() if row.startswith("| this project")]
    read_shares = [float(row[4]) for row in own_rows]
    assert max(read_shares) < 0.9
    assert len(read_shares) == 4
