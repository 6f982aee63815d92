"""Which checkpoint counts, which are kept, and what may change between two starts."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import Renamed, digest
from core.errors import BadInput, WorkFailed
from core.storage import Storage
from tests.support.checkpoints import settings, write
from train.checkpoints.checkpoint import find_checkpoint, latest_checkpoint
from train.checkpoints.manifest import differences
from train.checkpoints.pruning import prune
from train.checkpoints.resuming import find_resumable
from train.recipes.zero123plus_config import Zero123PlusTrainConfig


def newest(out: Path) -> int | None:
    found = latest_checkpoint(Storage(str(out / "checkpoints")))
    return None if found is None else found.step


def steps(out: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (out / "checkpoints").iterdir())


DAMAGES = {
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "half a manifest": lambda folder: (folder / "manifest.json").write_text('{"format": 2, "st'),
    "an empty manifest": lambda folder: (folder / "manifest.json").write_text(""),
    "another configuration in it": lambda folder: change(folder, config={"seed": 1}),
    "a flipped byte": lambda folder: (folder / "weights.pt").write_bytes(b"abd"),
    "a short file": lambda folder: (folder / "weights.pt").write_bytes(b"ab"),
    "a missing file": lambda folder: (folder / "weights.pt").unlink(),
}


def change(folder: Path, **values) -> None:
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | values))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_passed_over_saying_so(tmp_path, caplog, damage):
    write(tmp_path, 2)
    torn = write(tmp_path, 4)
    assert newest(tmp_path) == 4
    DAMAGES[damage](torn)
    assert newest(tmp_path) == 2
    assert "step-00000004: not an intact checkpoint, trying the one before" in caplog.text
    with pytest.raises(BadInput, match="is not an intact checkpoint"):
        find_checkpoint(torn)


def test_nothing_is_found_in_an_empty_folder(tmp_path):
    assert newest(tmp_path) is None
    assert find_resumable(settings(tmp_path)) is None
    with pytest.raises(BadInput, match="is not a run with an intact checkpoint"):
        find_checkpoint(tmp_path)


def test_the_newest_and_every_mth_are_kept_and_an_abandoned_future_goes(tmp_path):
    """A run that went back behind a damaged checkpoint must not lose what it writes now."""
    for step in (1, 2, 3, 4, 5, 6, 7, 9):
        write(tmp_path, step)
    (tmp_path / "checkpoints/step-00000007/manifest.json").unlink()
    prune(Storage(str(tmp_path / "checkpoints")), 7, keep_newest=2, keep_every=2)
    assert steps(tmp_path) == [2, 4, 5, 6]


def test_another_run_is_refused_naming_what_differs(tmp_path):
    write(tmp_path, 2)
    changed = settings(tmp_path, seed=1, optimizer={"beta1": 0.5}, steps=7)
    with pytest.raises(BadInput) as caught:
        find_resumable(changed)
    assert "optimizer.beta1 (0.9 -> 0.5); seed (0 -> 1)" in str(caught.value)
    assert "steps" not in str(caught.value)
    assert "--accept-changes '[optimizer.beta1, seed]'" in str(caught.value)


def test_harmless_and_accepted_changes_are_not_refused(tmp_path):
    write(tmp_path, 2)
    harmless = {"steps": 50, "num_workers": 2, "reading": {"attempts": 9}, "watchdog_seconds": 1}
    found = find_resumable(settings(tmp_path, **harmless))
    assert found is not None
    assert found.step == 2
    accepted = settings(tmp_path, optimizer={"beta1": 0.5}, accept_changes=["optimizer"])
    assert find_resumable(accepted) is not None


def test_one_of_another_version_is_refused_and_not_taken_for_torn(tmp_path):
    write(tmp_path, 2)
    change(write(tmp_path, 4), format=3)
    with pytest.raises(BadInput, match="step-00000004: is a checkpoint of format 3, this version"):
        newest(tmp_path)


def test_a_storage_that_does_not_answer_is_no_missing_checkpoint(tmp_path):
    """What cannot be read now may be whole: the run ends, and nothing is taken for abandoned."""
    write(tmp_path, 2)
    manifest = write(tmp_path, 4) / "manifest.json"
    manifest.unlink()
    manifest.mkdir()
    with pytest.raises(WorkFailed, match=r"step-00000004/manifest.json: cannot be read: "):
        newest(tmp_path)


@given(st.dictionaries(st.sampled_from(["seed", "steps", "precision"]), st.integers()))
def test_nothing_differs_from_itself(values):
    nested = {"a": values, **values}
    assert differences(nested, nested) == []


def test_a_renamed_setting_is_compared_under_its_new_name():
    renamed = {"a.old": Renamed("a.new"), "top": Renamed("b.moved")}
    before, now = {"a": {"old": 1}, "top": 2}, {"a": {"new": 1}, "b": {"moved": 2}}
    assert differences(before, now, renamed=renamed) == []
    changed = {"a": {"new": 3}, "b": {"moved": 2}}
    assert differences(before, changed, renamed=renamed) == ["a.new (1 -> 3)"]
    for accepted in ("a.old", "a.new", "a"):
        assert differences(before, changed, [accepted], renamed) == []


def test_a_zero123plus_run_of_an_older_version_resumes(tmp_path):
    """Its stored configuration has the settings under their old names."""
    given = {"root": "/data", "snapshot": "abc", "out": str(tmp_path), "preset": "tiny"}
    config = Zero123PlusTrainConfig.load(
        given
        | {"unconditional_level": 0.25}
        | {"data": {"condition_dropout": 0.2, "condition_dropout_per": "batch"}}
    )
    stored = config.dump()
    stored["blank"] = stored.pop("unconditional_level")
    stored["data"]["drop"] = stored["data"].pop("condition_dropout")
    stored["data"]["drop_per"] = stored["data"].pop("condition_dropout_per")
    folder = write(tmp_path, 2)
    change(folder, config=stored, config_digest=digest(stored))
    checkpoint = find_resumable(config)
    assert checkpoint is not None
    assert checkpoint.step == 2
    assert Zero123PlusTrainConfig.load(checkpoint.manifest.config) == config
    other = config.model_copy(update={"unconditional_level": 0.5})
    with pytest.raises(BadInput, match=r"unconditional_level \(0.25 -> 0.5\); restore"):
        find_resumable(other)
    assert find_resumable(other.model_copy(update={"accept_changes": ("blank",)})) is not None


def test_a_setting_that_is_gone_or_new_is_a_difference():
    assert differences({"a": {"b": 1}}, {"a": {"c": 1}}) == ["a.b (1 -> None)", "a.c (None -> 1)"]
