"""What `--out` and `--checkpoints` may contain before a run writes there."""

import json
from pathlib import Path

import pytest

from core.errors import BadInput
from core.storage import Storage
from dataset.root import write_build
from tests.support.checkpoints import write
from train.loop.run_folder import check_run_folder
from train.monitoring.run_file import write_run
from train.recipes.mesh import MeshTrainConfig
from train.recipes.nerf import NerfTrainConfig
from train.recipes.registry import RECIPES, recipe_of
from train.recipes.zero123plus_config import Zero123PlusTrainConfig

CONFIGS = (NerfTrainConfig, MeshTrainConfig, Zero123PlusTrainConfig)


def config(kind, out: Path, **more):
    return kind.load({"root": "/data", "snapshot": "abc", "out": str(out)} | more)


@pytest.mark.parametrize("below", ["", "runs", "shards/deep/er"])
@pytest.mark.parametrize("option", ["out", "checkpoints"])
def test_a_dataset_is_refused(tmp_path, option, below):
    root = tmp_path / "dataset"
    write_build(Storage(root), {})
    folders = {"out": tmp_path / "run"} | {option: root / below}
    settings = config(NerfTrainConfig, **{k: str(v) for k, v in folders.items()})
    with pytest.raises(BadInput, match=rf"--{option} .*{root} is a dataset"):
        check_run_folder(settings, recipe_of)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset"]


def test_a_dataset_in_an_object_store_is_refused(monkeypatch):
    root = Storage("memory://bucket/lrm")
    root.write("dataset.json", b'{"format": 2}')
    settings = config(NerfTrainConfig, Path("/nowhere/run"), checkpoints="memory://bucket/lrm/run")
    with pytest.raises(BadInput, match=r"--checkpoints .*memory://bucket/lrm is a dataset"):
        check_run_folder(settings, recipe_of)


def test_a_file_of_another_program_is_no_dataset(tmp_path):
    (tmp_path / "dataset.json").write_text('{"name": "of another program"}')
    check_run_folder(config(NerfTrainConfig, tmp_path / "run"), recipe_of)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("is_recorded", [True, False], ids=["recorded", "older version"])
def test_a_run_of_another_recipe_is_refused(tmp_path, kind, is_recorded):
    settings = config(kind, tmp_path)
    write_run(tmp_path, settings, 0, ["host"])
    if not is_recorded:
        record = json.loads((tmp_path / "run.json").read_text())
        del record["recipe"]
        (tmp_path / "run.json").write_text(json.dumps(record))
    check_run_folder(settings, recipe_of)
    for other in set(CONFIGS) - {kind}:
        with pytest.raises(BadInput, match=f"of the recipe {kind.recipe}, not {other.recipe}"):
            check_run_folder(config(other, tmp_path), recipe_of)


def test_checkpoints_of_another_recipe_are_refused(tmp_path):
    folder = write(tmp_path / "a", 4)
    manifest = json.loads((folder / "manifest.json").read_text()) | {"recipe": "mesh"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    settings = {"checkpoints": str(tmp_path / "a" / "checkpoints")}
    check_run_folder(config(MeshTrainConfig, tmp_path / "b", **settings), recipe_of)
    with pytest.raises(BadInput, match=r"step-00000004: .* recipe mesh, not nerf"):
        check_run_folder(config(NerfTrainConfig, tmp_path / "b", **settings), recipe_of)


def test_an_unknown_configuration_is_of_no_recipe(tmp_path):
    """As of a version with other settings: the run goes on, and compares settings later."""
    stored = config(NerfTrainConfig, tmp_path).dump() | {"gone": 1}
    assert recipe_of(stored) is None
    (tmp_path / "run.json").write_text(json.dumps({"config": stored}))
    check_run_folder(config(MeshTrainConfig, tmp_path), recipe_of)


def test_other_files_are_a_warning_only_for_a_new_run(tmp_path, caplog):
    settings = config(NerfTrainConfig, tmp_path)
    (tmp_path / "stop").touch()
    check_run_folder(settings, recipe_of)
    assert caplog.text == ""
    (tmp_path / "notes.txt").touch()
    check_run_folder(settings, recipe_of)
    assert "contains 1 file or folder that no run wrote: notes.txt" in caplog.text
    caplog.clear()
    write_run(tmp_path, settings, 0, ["host"])
    check_run_folder(settings, recipe_of)
    assert caplog.text == ""
    with pytest.raises(BadInput, match="not a folder but a file"):
        check_run_folder(config(NerfTrainConfig, tmp_path / "notes.txt"), recipe_of)


def test_every_configuration_names_its_recipe():
    assert {name: kind.config.recipe for name, kind in RECIPES.items()} == {n: n for n in RECIPES}
