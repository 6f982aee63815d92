"""The lines of docs/reference/security.md without a test elsewhere, and that each has a test."""

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
from train.models.lrm.published_weights import read_weights

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
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            yield ast.unparse(node.func), words


def test_nothing_that_is_read_can_run():
    """Pickles of others are read as tensors alone; there is no shell, and no eval."""
    for path, tree in sources():
        for name, words in calls(tree):
            where = f"{path}: {name}"
            if name == "torch.load":
                assert words.get("weights_only") == "True", where
            else:
                assert name not in LOADERS, where
            if name in ("np.load", "numpy.load") or name.endswith("read_array"):
                assert words.get("allow_pickle", "False") == "False", where
            assert words.get("shell") != "True", where


class Bomb:
    """Leaves a file behind if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return os.mkdir, (str(self._path),)


def test_a_changed_checkpoint_is_not_opened(tmp_path):
    """Its hash is looked at before its pickles, and the one before is taken."""
    write(tmp_path, 2)
    newer, mark = write(tmp_path, 4), tmp_path / "it ran"
    (newer / "weights.pt").write_bytes(pickle.dumps(Bomb(mark)))
    found = latest_checkpoint(Storage(str(tmp_path / "checkpoints")))
    assert found is not None
    assert found.step == 2
    with pytest.raises(BadInput, match="is not an intact checkpoint"):
        find_checkpoint(newer)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()


def test_a_manifest_names_no_file_outside(tmp_path):
    folder = write(tmp_path, 2)
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = next(iter(manifest["files"].values()))
    for name in ("../weights.pt", "/etc/passwd", "a/b"):
        changed = manifest | {"files": {**manifest["files"], name: entry}}
        (folder / "manifest.json").write_text(json.dumps(changed))
        assert latest_checkpoint(Storage(str(tmp_path / "checkpoints"))) is None


def test_weights_that_would_run_code_are_refused(tmp_path):
    mark = tmp_path / "it ran"
    torch.save({"state_dict": Bomb(mark)}, tmp_path / "model.ckpt")
    with pytest.raises(BadInput, match="could run code"):
        read_weights(tmp_path / "model.ckpt")
    assert not mark.exists()


@given(st.text(min_size=1))
def test_an_id_stays_one_name(native):
    """Keys of samples and names of exported folders: no separator, no dot, no NUL."""
    key = sample_key(f"files:{native}")
    assert re.fullmatch(r"files-[\w%~-]+", key, re.ASCII)


@pytest.mark.parametrize(
    "path",
    ["glbs/../../etc/a.glb", "/etc/passwd", "glbs/a/b.glb\n", "glbs/a/../b.glb", "glbs/\0/b.glb"],
)
def test_a_listing_names_no_file_outside(tmp_path, path):
    (tmp_path / "metadata").mkdir()
    files = {"object-paths.json.gz": {"0" * 32: path}, "lvis-annotations.json.gz": {}}
    for name, content in files.items():
        (tmp_path / name).write_bytes(gzip.compress(json.dumps(content).encode()))
    with pytest.raises(BadInput, match=r"is damaged: .* is not of the form glbs/FOLDER/FILE"):
        open_source(str(tmp_path)).parts()


def test_names_do_not_act_on_a_terminal(capsys):
    verdict = {"filter": "textured", "reason": HOSTILE, "measured": 1, "limit": 2}
    failure = {"stage": "render", "kind": "crash", "message": HOSTILE}
    found = {
        "asset_id": f"files:{HOSTILE}",
        "record": {"name": HOSTILE},
        "state": "dropped",
        "dropped": [verdict],
        "failed": failure,
        "events": [],
        "samples": [],
    }
    show_object(found)
    code = main(["inspect", "--root", "/nowhere", f"files:{HOSTILE}"])
    said = capsys.readouterr()
    assert code == 2
    assert "name" in said.out
    for text in (said.out, said.err):
        assert not {"\x1b", "\x07", "\r", "\u202e"} & set(text)


def test_every_line_of_the_threat_model_has_its_tests():
    page = (REPOSITORY / "docs/reference/security.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in row[1:-1]] for row in rows if "---" not in row[1]]
    names = set()
    for row in rows:
        if row[-1] == "test":
            continue
        found = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[-1])
        assert found, row
        names |= set(found)
    assert len(names) > 20
    for path, name in sorted(names):
        assert re.search(rf"^def {name}\(", (REPOSITORY / path).read_text(), re.M), (path, name)
