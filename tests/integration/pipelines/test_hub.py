"""`--source objaverse` against a server that answers like the hub.

In processes of their own: libraries read HF_ENDPOINT and HOME when they are imported.
"""

import re
from pathlib import Path

from pipelines.demo.demo_mirror import CAPTIONS_FILE
from tests.support.datasets import QUICK
from tests.support.hub import COMMIT, serve_hub
from tests.support.lrm import spawn_lrm


def test_build_from_the_hub_pins_a_commit_and_fetches_only_what_it_needs(
    demo_source: Path, tmp_path: Path
):
    words = ["--source", "objaverse", "--captions", demo_source / CAPTIONS_FILE, *QUICK]
    words += ["--root", tmp_path / "root", "--rig", "one2345", "--limit", "5", "--json"]
    with serve_hub(demo_source) as hub:
        asked = hub.asked
        here = {"HF_ENDPOINT": hub.address, "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf")}
        status = spawn_lrm("build", *words, **here).json()
        glbs = {path for path in asked if path.endswith(".glb") and path.startswith("GET")}
        assert status["listed"] == 5
        fetched = status["stages"]["fetch"]["done"]
        # What is no whole GLB at the source was asked for, too, and goes no further.
        assert len(glbs) == fetched + status["failed"].get("malformed", 0) < 5
        assert all(f"/resolve/{COMMIT}/" in path for path in glbs)
        raw = [path.stem for path in tmp_path.glob("root/raw/*/*.glb")]
        assert len(raw) == fetched
        assert all(re.fullmatch("[0-9a-f]{64}", name) for name in raw)
        del asked[:]
        again = spawn_lrm("build", *words, **here).json()
        assert again["stages"] == status["stages"]
        assert not [path for path in asked if path.endswith(".glb")]


def test_a_hub_that_does_not_answer(tmp_path: Path):
    here = {"HF_ENDPOINT": "http://127.0.0.1:1", "HOME": str(tmp_path)}
    answer = spawn_lrm("plan", "--source", "objaverse", "--root", tmp_path / "root", **here)
    assert answer.code == 2
    (line,) = answer.err.strip().splitlines()
    assert "cannot look up" in line
    assert "HF_ENDPOINT" in line
