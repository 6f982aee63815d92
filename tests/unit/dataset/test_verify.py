"""Damage to a shard is detected, reported and repaired."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.storage import Storage
from dataset.format.shards import index_path, read_index, write_index
from dataset.maintenance.repair import restore_shard
from dataset.maintenance.shard_check import CheckReport, ExpectedShard, check_geometry, check_shard
from tests.support.small_shards import MEMBERS, content, key, write_small_shard

SHARD = "shards/test/a.tar"
NUMBERS = [1, 2, 3]


class Shard:
    """One shard of three samples that may be damaged."""

    def __init__(self, folder: Path) -> None:
        self.root = Storage(str(folder))
        self.folder = folder
        self.sha256 = write_small_shard(self.root, SHARD, NUMBERS)
        self.expected = ExpectedShard(
            shard=SHARD, sha256=self.sha256, keys=frozenset(map(key, NUMBERS))
        )
        self.tar = folder / SHARD
        self.index = folder / index_path(SHARD)
        self.entries, _ = read_index(self.root, SHARD)

    def check(self) -> CheckReport:
        return check_shard(self.root, self.expected)

    def flip(self, at: int) -> None:
        data = bytearray(self.tar.read_bytes())
        data[at] ^= 1
        self.tar.write_bytes(data)

    def restore(self, *donors: int) -> bool:
        members = {key(number): content(number) for number in donors}
        scratch = self.folder / "scratch"
        return restore_shard(self.root, SHARD, self.sha256, members, scratch)


@pytest.fixture
def shard(tmp_path) -> Shard:
    return Shard(tmp_path)


def test_an_intact_shard_has_no_findings(shard):
    report = shard.check()
    assert report.findings == ()
    assert (report.num_samples, report.num_bytes) == (3, shard.tar.stat().st_size)


def test_a_flipped_byte_loses_one_sample_and_its_member_is_reported(shard):
    shard.flip(shard.entries[1].offsets[2] + 5)
    report = shard.check()
    assert str(report.findings[0]) == f"{SHARD}: {key(2)}.json: fails its checksum"
    assert (len(report.findings), report.lost, report.restorable) == (1, {key(2)}, set())
    assert not shard.restore()
    assert not shard.restore(1)
    assert shard.restore(2)
    assert shard.check().findings == ()


def test_a_flipped_byte_of_a_header_loses_no_sample(shard):
    shard.flip(shard.entries[1].offsets[0] - 512)
    report = shard.check()
    assert [finding.sample for finding in report.findings] == [key(2)]
    assert "tar header" in report.findings[0].problem
    assert (report.lost, report.restorable) == (set(), {key(2)})
    assert shard.restore()
    assert shard.check().findings == ()


def test_a_truncated_tar_loses_the_samples_after_the_cut(shard):
    shard.tar.write_bytes(shard.tar.read_bytes()[: shard.entries[1].offsets[1] + 3])
    report = shard.check()
    assert "is cut off" in report.findings[0].problem
    reported = {(finding.sample, finding.member) for finding in report.findings[1:]}
    after_the_cut = {(key(3), name) for name in MEMBERS} | {(key(2), name) for name in MEMBERS[1:]}
    assert reported == after_the_cut
    assert report.lost == {key(2), key(3)}
    assert shard.restore(2, 3)
    assert shard.check().findings == ()


def test_a_missing_shard_loses_every_sample(shard):
    shard.tar.unlink()
    report = shard.check()
    assert report.findings[0].problem == "the shard is missing"
    assert [finding.sample for finding in report.findings[1:]] == list(map(key, NUMBERS))
    assert report.lost == shard.expected.keys
    assert shard.restore(1, 2, 3)
    assert shard.check().findings == ()


@pytest.mark.parametrize("damage", ["missing", "torn"])
def test_an_index_is_written_again_from_an_intact_tar(shard, damage):
    before = shard.index.read_bytes()
    if damage == "missing":
        shard.index.unlink()
    else:
        shard.index.write_bytes(before[:100])
    report = shard.check()
    assert f"the index is {damage}" in report.findings[0].problem
    assert report.findings[0].file == index_path(SHARD)
    assert (report.lost, report.restorable) == (set(), shard.expected.keys)
    assert shard.restore()
    assert shard.index.read_bytes() == before


def test_a_shard_that_is_missing_with_its_index_is_restored(shard):
    shard.tar.unlink()
    shard.index.unlink()
    report = shard.check()
    assert [finding.problem for finding in report.findings[:2]] == [
        "the shard is missing",
        "the index is missing",
    ]
    assert shard.restore(1, 2, 3)
    assert shard.check().findings == ()


def test_a_damaged_tar_without_an_index_loses_every_sample(shard):
    shard.index.unlink()
    shard.flip(shard.entries[0].offsets[0])
    assert shard.check().lost == shard.expected.keys
    assert shard.restore(1, 2, 3)
    assert shard.check().findings == ()


def test_an_index_that_disagrees_with_the_tar_is_written_again(shard):
    wrong = replace(shard.entries[2], crc32=[1, *shard.entries[2].crc32[1:]])
    data = write_index([*shard.entries[:2], wrong], shard.sha256, shard.tar.stat().st_size)
    shard.index.write_bytes(data)
    report = shard.check()
    assert (report.findings[0].sample, report.findings[0].member) == (key(3), MEMBERS[0])
    assert "disagrees" in report.findings[0].problem
    assert report.lost == set()
    assert shard.restore()
    assert shard.check().findings == ()


def test_another_shard_under_the_same_name_is_detected(shard):
    """It is intact and consistent, but not the shard that the catalog records."""
    write_small_shard(shard.root, SHARD, [1, 3])
    report = shard.check()
    assert key(2) in report.lost
    assert any(finding.sample == key(2) for finding in report.findings)


def test_damage_to_unused_samples_loses_nothing(shard):
    expected = replace(shard.expected, keys=frozenset([key(1)]))
    shard.flip(shard.entries[1].offsets[0])
    report = check_shard(shard.root, expected)
    assert report.lost == set()
    assert "not in a sample that is in use" in report.findings[0].problem


@settings(max_examples=25)
@given(st.data())
def test_any_flipped_byte_is_detected_and_loses_at_most_one_sample(tmp_path_factory, data):
    shard = Shard(tmp_path_factory.mktemp("shard"))
    shard.flip(data.draw(st.integers(0, shard.tar.stat().st_size - 1)))
    report = shard.check()
    assert report.findings
    assert len(report.lost) <= 1
    assert shard.restore(*(number for number in NUMBERS if key(number) in report.lost))
    assert shard.check().findings == ()


def test_a_missing_or_damaged_companion_file_is_reported(tmp_path):
    root = Storage(str(tmp_path))
    assert "missing" in check_geometry(root, "geometry/a.npz").findings[0].problem
    root.write("geometry/a.npz", b"PK\x03\x04 no more")
    assert "damaged" in check_geometry(root, "geometry/a.npz").findings[0].problem
