"""The threats of docs/reference/security.md that no other file tests; each has a test."""

import ast
import gzip
import json
import os
import pickle
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadInput
from core.storage import Storage
from dataset.object_record import sample_key
from pipelines.cli import main
from pipelines.cli.tables import show_object
from pipelines.sources import open_source
from tests.support.checkpoints import write
from tests.support.paths import REPOSITORY
from tests.support.sources import sources
from train.checkpoints.checkpoint import find_checkpoint, latest_checkpoint
from train.models.weight_files.state_dicts import read_state

HOSTILE = "\x1b]0;owned\x07\x1b[2Jname\u202etxt\r"
LOADERS = {
    "pickle.load",
    "pickle.loads",
    "torch.load",
    "joblib.load",
    "yaml.load",
    "eval",
    "exec",
    "os.system",
}


def calls(tree: ast.Module):
    """Yield the function and the keyword arguments of every call, as source text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            arguments = {word.arg: ast.unparse(word.value) for word in node.keywords}
            yield ast.unparse(node.func), arguments


def test_nothing_that_is_read_can_run():
    """Pickles are loaded with `weights_only`; nothing uses a shell, `eval` or `exec`."""
    for path, tree in sources():
        for name, arguments in calls(tree):
            location = f"{path}: {name}"
            if name == "torch.load":
                assert arguments.get("weights_only") == "True", location
            else:
                assert name not in LOADERS, location
            if name in ("np.load", "numpy.load") or name.endswith("read_array"):
                assert arguments.get("allow_pickle", "False") == "False", location
            assert arguments.get("shell") != "True", location


class Bomb:
    """An object that creates a folder if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return os.mkdir, (str(self._path),)


def test_a_changed_checkpoint_is_not_opened(tmp_path):
    """Its hash is checked before its pickles are read, and the previous checkpoint is used."""
    write(tmp_path, 2)
    newer, marker = write(tmp_path, 4), tmp_path / "it ran"
    (newer / "weights.pt").write_bytes(pickle.dumps(Bomb(marker)))
    checkpoint = latest_checkpoint(Storage(str(tmp_path / "checkpoints")))
    assert checkpoint is not None
    assert checkpoint.step == 2
    with pytest.raises(BadInput, match="is not an intact checkpoint"):
        find_checkpoint(newer)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Bomb(marker)))
    assert marker.exists()


def test_a_manifest_names_no_file_outside(tmp_path):
    folder = write(tmp_path, 2)
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = next(iter(manifest["files"].values()))
    for name in ("../weights.pt", "/etc/passwd", "a/b"):
        changed = manifest | {"files": {**manifest["files"], name: entry}}
        (folder / "manifest.json").write_text(json.dumps(changed))
        assert latest_checkpoint(Storage(str(tmp_path / "checkpoints"))) is None


def test_weights_that_would_run_code_are_refused(tmp_path):
    marker = tmp_path / "it ran"
    torch.save({"state_dict": Bomb(marker)}, tmp_path / "model.ckpt")
    with pytest.raises(BadInput, match="could run code"):
        read_state(tmp_path / "model.ckpt")
    assert not marker.exists()


@given(st.text(min_size=1))
def test_an_id_stays_one_name(native):
    """Sample keys, which also name exported folders, have no separator, dot or NUL."""
    key = sample_key(f"files:{native}")
    assert re.fullmatch(r"files-[\w%~-]+", key, re.ASCII)


def test_the_keys_of_long_ids_are_file_names():
    """Every character of an alphabet without ASCII takes up to twelve in a key."""
    long = [f"folder:{'楽' * 300}/{name}" for name in "ab"]
    keys = {sample_key(asset_id) for asset_id in long}
    assert [len(key) for key in keys] == [200, 200]


@pytest.mark.parametrize(
    "path",
    ["glbs/../../etc/a.glb", "/etc/passwd", "glbs/a/b.glb\n", "glbs/a/../b.glb", "glbs/\0/b.glb"],
)
def test_a_listing_names_no_file_outside(tmp_path, path):
    good = {"1" * 32: f"glbs/a/{'1' * 32}.glb"}
    paths = {"0" * 32: path} | good
    for name, content in {"object-paths": paths, "lvis-annotations": {}, "metadata/a": {}}.items():
        file = tmp_path / f"{name}.json.gz"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(gzip.compress(json.dumps(content).encode()))
    source = open_source(str(tmp_path))
    assert list(source.parts()) == ["a"]
    assert [item.record.path for item in source.read_part("a")] == list(good.values())


def test_names_do_not_act_on_a_terminal(capsys):
    verdict = {"filter": "textured", "reason": HOSTILE, "measured": 1, "limit": 2}
    failure = {"stage": "render", "kind": "crash", "message": HOSTILE}
    report = {
        "asset_id": f"files:{HOSTILE}",
        "record": {"name": HOSTILE},
        "state": "dropped",
        "dropped": [verdict],
        "failed": failure,
        "events": [],
        "samples": [],
    }
    show_object(report)
    code = main(["inspect", "--root", "/nowhere", f"files:{HOSTILE}"])
    output = capsys.readouterr()
    assert code == 2
    assert "name" in output.out
    for text in (output.out, output.err):
        assert not {"\x1b", "\x07", "\r", "\u202e"} & set(text)


def test_every_line_of_the_threat_model_has_its_tests():
    page = (REPOSITORY / "docs/reference/security.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in row[1:-1]] for row in rows if "---" not in row[1]]
    names = set()
    for row in rows:
        if row[-1] == "test":
            continue
        references = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[-1])
        assert references, row
        names |= set(references)
    assert len(names) > 20
    for path, name in sorted(names):
        assert re.search(rf"^def {name}\(", (REPOSITORY / path).read_text(), re.M), (path, name)
