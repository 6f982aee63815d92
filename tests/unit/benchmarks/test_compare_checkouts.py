"""The comparison of two checkouts reports every difference except times."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.proofs.compare_checkouts import Comparison, Side, files, metrics, weights


def test_only_the_times_of_manifests_may_differ(tmp_path):
    for name, created, samples in (("a", "2026", 3), ("b", "2027", 3), ("c", "2026", 4)):
        (tmp_path / name).mkdir()
        manifest = {"created": created, "samples": samples}
        (tmp_path / name / "x.json").write_text(json.dumps(manifest))
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a") != files(tmp_path / "c")


@pytest.mark.parametrize("name", ["a.tar", "deep/b.parquet"])
def test_a_changed_byte_or_an_additional_file_is_a_difference(tmp_path, name):
    for side in ("first", "second"):
        path = tmp_path / side / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"same")
    sides = tmp_path / "first", tmp_path / "second"
    comparison = Comparison()
    comparison.check("shards", *map(files, sides))
    assert (comparison.counts, comparison.differences) == ({"shards": 1}, [])
    (sides[0] / name).write_bytes(b"sane")
    (sides[1] / "more").write_bytes(b"")
    comparison.check("shards", *map(files, sides))
    assert comparison.differences == [f"shards: {name}", "shards: more"]


def test_nothing_to_compare_is_a_difference():
    comparison = Comparison()
    comparison.check("shards", {}, {})
    assert comparison.differences == ["shards: there is nothing to compare"]


def test_steps_are_compared_without_their_times(tmp_path):
    row = {"step": 1, "samples": 2, "loss": 0.5, "batch": "ab", "lr": 0.1}
    machine = {
        "seconds": 1.0,
        "seconds_data": 0.1,
        "time": 5,
        "samples_per_second": 2,
        "goodput": 1,
    }
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row | machine) + "\n")
    assert metrics(tmp_path) == {"step 1": row}


def test_weights_are_compared_to_the_last_bit(tmp_path):
    one = np.ones(3, dtype=np.float32)
    save_file({"w": one}, tmp_path / "a.safetensors")
    save_file({"w": np.nextafter(one, 2)}, tmp_path / "b.safetensors")
    assert weights(tmp_path / "a.safetensors") != weights(tmp_path / "b.safetensors")


def test_a_dataset_is_built_with_the_captions_of_its_source(tmp_path):
    side = Side(tmp_path, tmp_path)
    assert "--captions" not in side.build_words("lrm", tmp_path)
    (tmp_path / "Cap3D_automated.csv").touch()
    assert side.build_words("lrm", tmp_path)[-2] == "--captions"
