"""The difference of two snapshots, against a comparison of their rows in plain Python."""

import tempfile
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from core.storage import Storage
from dataset.snapshots.difference import COMPARED, Difference, difference
from dataset.snapshots.manifests import read_manifest
from dataset.snapshots.rows import read_rows
from dataset.snapshots.snapshot import Sample, write_snapshot
from tests.support.small_shards import small_sample

VALUES = {
    "rig": ["a", "b"],
    "sha256": ["x", "y"],
    "render_key": ["r", "s"],
    "shard": ["1.tar", "2.tar"],
    "caption": [None, "", "a chair"],
    "licence": [None, "by"],
    "tags": [(), ("a", "b"), ("ab",), ("b", "a")],
    "categories": [(), ("chair",)],
    "geometry": [None, "g.npz"],
    "split": ["train", "validation"],
}
SAMPLES = st.dictionaries(
    st.integers(1, 6),
    st.fixed_dictionaries({name: st.sampled_from(values) for name, values in VALUES.items()}),
    min_size=1,
)


def compared(root: Storage, *sides: list[Sample]) -> Difference:
    ids = [write_snapshot(root, samples, None)["snapshot"] for samples in sides]
    return difference(*(read_rows(root, read_manifest(root, name), COMPARED) for name in ids))


def expected(before: list[Sample], after: list[Sample]) -> dict:
    """Return the fields of the difference, compared row by row."""
    left, right = ({sample.asset_id: sample for sample in side} for side in (before, after))
    rendered, changed, moved = defaultdict(list), defaultdict(list), []
    for asset_id in sorted(left.keys() & right.keys()):
        old, new = left[asset_id], right[asset_id]
        causes = [
            why
            for why, name in {"rig": "rig", "file": "sha256", "settings": "render_key"}.items()
            if getattr(old, name) != getattr(new, name)
        ]
        if causes:
            rendered[causes[0]].append(asset_id)
        elif old.shard != new.shard:
            moved.append(asset_id)
        for name in ("split", "name", "caption", "licence", "author", "tags", "categories"):
            if getattr(old, name) != getattr(new, name):
                changed[name].append(asset_id)
        if old.geometry != new.geometry:
            changed["geometry"].append(asset_id)
    return {
        "samples": (len(left), len(right)),
        "added": sorted(right.keys() - left.keys()),
        "removed": sorted(left.keys() - right.keys()),
        "rendered": rendered,
        "changed": changed,
        "moved": moved,
    }


@settings(max_examples=20)
@given(sides=st.tuples(SAMPLES, SAMPLES))
def test_the_difference_equals_that_of_the_rows(sides):
    before, after = (
        [small_sample(number, **fields) for number, fields in side.items()] for side in sides
    )
    with tempfile.TemporaryDirectory() as folder:
        found = compared(Storage(folder), before, after)
    assert found.samples == (len(before), len(after))
    wanted = expected(before, after)
    for name in ("added", "removed", "moved"):
        assert getattr(found, name).to_pylist() == wanted[name]
    for name in ("rendered", "changed"):
        groups = {key: ids.to_pylist() for key, ids in getattr(found, name).items()}
        assert groups == wanted[name]
