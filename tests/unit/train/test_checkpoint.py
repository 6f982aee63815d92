"""Finding the newest intact checkpoint, pruning, and allowed changes between two starts."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import Renamed, digest
from core.errors import BadInput, WorkFailed
from core.storage import Storage
from tests.support.checkpoints import settings, write
from tests.support.run_files import step_line
from tests.support.tiny_recipe import TinyConfig
from train.checkpoints.checkpoint import find_checkpoint, latest_checkpoint
from train.checkpoints.manifest import differences
from train.checkpoints.pruning import prune
from train.checkpoints.resuming import find_resumable
from train.recipes.zero123plus_config import Zero123PlusTrainConfig


def newest_step(out: Path) -> int | None:
    checkpoint = latest_checkpoint(Storage(str(out / "checkpoints")))
    return None if checkpoint is None else checkpoint.step


def stored_steps(out: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (out / "checkpoints").iterdir())


DAMAGES = {
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "a truncated manifest": lambda folder: (folder / "manifest.json").write_text(
        '{"format": 2, "st'
    ),
    "an empty manifest": lambda folder: (folder / "manifest.json").write_text(""),
    "a manifest with another configuration": lambda folder: edit_manifest(
        folder, config={"seed": 1}
    ),
    "a flipped byte": lambda folder: (folder / "weights.pt").write_bytes(b"abd"),
    "a truncated file": lambda folder: (folder / "weights.pt").write_bytes(b"ab"),
    "a missing file": lambda folder: (folder / "weights.pt").unlink(),
}


def edit_manifest(folder: Path, **values) -> None:
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | values))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_skipped_with_a_warning(tmp_path, caplog, damage):
    write(tmp_path, 2)
    damaged = write(tmp_path, 4)
    assert newest_step(tmp_path) == 4
    DAMAGES[damage](damaged)
    assert newest_step(tmp_path) == 2
    assert "step-00000004: not an intact checkpoint, trying the one before" in caplog.text
    with pytest.raises(BadInput, match="is not an intact checkpoint"):
        find_checkpoint(damaged)


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    assert newest_step(tmp_path) is None
    assert find_resumable(settings(tmp_path)) is None
    with pytest.raises(BadInput, match="is not a run with an intact checkpoint"):
        find_checkpoint(tmp_path)


def test_pruning_keeps_the_newest_and_every_mth_and_deletes_later_abandoned_ones(tmp_path):
    """After a run resumed from before a damaged checkpoint, its new checkpoints must be kept."""
    for step in (1, 2, 3, 4, 5, 6, 7, 9):
        write(tmp_path, step)
    (tmp_path / "checkpoints/step-00000007/manifest.json").unlink()
    prune(Storage(str(tmp_path / "checkpoints")), 7, keep_newest=2, keep_every=2)
    assert stored_steps(tmp_path) == [2, 4, 5, 6]


def test_a_changed_configuration_is_an_error_that_names_the_differences(tmp_path):
    write(tmp_path, 2)
    changed = settings(tmp_path, seed=1, optimizer={"beta1": 0.5}, steps=7)
    with pytest.raises(BadInput) as caught:
        find_resumable(changed)
    assert "optimizer.beta1 (0.9 -> 0.5); seed (0 -> 1)" in str(caught.value)
    assert "steps" not in str(caught.value)
    assert "--accept-changes '[optimizer.beta1, seed]'" in str(caught.value)


def test_a_fixed_setting_may_not_differ_even_if_it_is_accepted(tmp_path, monkeypatch):
    write(tmp_path, 3)
    monkeypatch.setattr(TinyConfig, "fixed", frozenset({"optimizer"}))
    other = settings(tmp_path, optimizer={"beta1": 0.5}, accept_changes=["optimizer.beta1"])
    with pytest.raises(BadInput, match=r"optimizer.beta1 .*give another --out$"):
        find_resumable(other)


def test_changeable_settings_and_accepted_changes_may_differ(tmp_path):
    write(tmp_path, 2)
    changes = {"steps": 50, "num_workers": 2, "reading": {"attempts": 9}, "watchdog_seconds": 1}
    checkpoint = find_resumable(settings(tmp_path, **changes))
    assert checkpoint is not None
    assert checkpoint.step == 2
    accepted = settings(tmp_path, optimizer={"beta1": 0.5}, accept_changes=["optimizer"])
    assert find_resumable(accepted) is not None


def test_a_checkpoint_of_another_format_is_an_error_and_not_skipped(tmp_path):
    write(tmp_path, 2)
    edit_manifest(write(tmp_path, 4), format=3)
    with pytest.raises(BadInput, match="step-00000004: is a checkpoint of format 3, this version"):
        newest_step(tmp_path)


def test_an_unreadable_manifest_is_not_a_missing_checkpoint(tmp_path):
    """A checkpoint that cannot be read may be intact, so the run ends and deletes nothing."""
    write(tmp_path, 2)
    manifest = write(tmp_path, 4) / "manifest.json"
    manifest.unlink()
    manifest.mkdir()
    with pytest.raises(WorkFailed, match=r"step-00000004/manifest.json: cannot be read: "):
        newest_step(tmp_path)


@pytest.mark.parametrize("damage", ["deleted", "emptied"])
@pytest.mark.parametrize("last_step", [4, 5])
def test_a_run_that_has_lost_its_only_manifest_does_not_begin_anew(tmp_path, damage, last_step):
    """Without a manifest, only the log tells a lost checkpoint from a save that was killed."""
    manifest = write(tmp_path, 4) / "manifest.json"
    (tmp_path / "metrics.jsonl").write_text(step_line(last_step))
    if damage == "deleted":
        manifest.unlink()
    else:
        manifest.write_bytes(b"")
    if (damage, last_step) == ("deleted", 4):
        assert find_resumable(settings(tmp_path)) is None
        return
    with pytest.raises(BadInput, match=r"none of its checkpoints is intact \(step-00000004\)"):
        find_resumable(settings(tmp_path))


@given(st.dictionaries(st.sampled_from(["seed", "steps", "precision"]), st.integers()))
def test_equal_configurations_have_no_differences(values):
    nested = {"a": values, **values}
    assert differences(nested, nested) == []


def test_a_renamed_setting_is_compared_under_its_new_name():
    renamed = {"a.old": Renamed("a.new"), "top": Renamed("b.moved")}
    stored, current = {"a": {"old": 1}, "top": 2}, {"a": {"new": 1}, "b": {"moved": 2}}
    assert differences(stored, current, renamed=renamed) == []
    changed = {"a": {"new": 3}, "b": {"moved": 2}}
    assert differences(stored, changed, renamed=renamed) == ["a.new (1 -> 3)"]
    for accepted in ("a.old", "a.new", "a"):
        assert differences(stored, changed, [accepted], renamed) == []


def test_a_zero123plus_run_of_an_older_version_resumes(tmp_path):
    """Its stored configuration has settings under their old names."""
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
    edit_manifest(folder, config=stored, config_digest=digest(stored))
    checkpoint = find_resumable(config)
    assert checkpoint is not None
    assert checkpoint.step == 2
    assert Zero123PlusTrainConfig.load(checkpoint.manifest.config) == config
    other = config.model_copy(update={"unconditional_level": 0.5})
    with pytest.raises(BadInput, match=r"unconditional_level \(0.25 -> 0.5\); restore"):
        find_resumable(other)
    assert find_resumable(other.model_copy(update={"accept_changes": ("blank",)})) is not None


def test_a_removed_or_new_setting_is_a_difference():
    assert differences({"a": {"b": 1}}, {"a": {"c": 1}}) == ["a.b (1 -> None)", "a.c (None -> 1)"]
