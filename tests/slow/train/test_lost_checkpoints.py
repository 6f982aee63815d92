"""Checkpoints after a loss of power at any step of a run that keeps one of them."""

import contextlib

from tests.support.lost_checkpoints import checkpoints_after_losses
from tests.support.ranks import Ranks
from tests.support.tiny_recipe import make_config


def test_a_run_has_a_whole_checkpoint_once_one_was_published(sphere_dataset, tmp_path):
    config = make_config(sphere_dataset, tmp_path / "run", 4, keep_checkpoints=1)
    (tmp_path / "ranks").mkdir()
    with contextlib.closing(Ranks(tmp_path / "ranks")) as ranks:
        (steps,) = ranks.run(1, checkpoints_after_losses, config.dump())
    assert not [damaged for disks in steps for _, damaged in disks if damaged]
    has_one = [all(whole for whole, _ in disks) for disks in steps]
    # The second checkpoint replaces the first one, and none is lost meanwhile.
    assert has_one == sorted(has_one)
    assert 5 < sum(has_one) < len(has_one) - 5
    assert all(whole == ["checkpoints/step-00000004"] for whole, _ in steps[-1])
