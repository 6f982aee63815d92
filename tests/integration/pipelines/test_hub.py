"""`--source objaverse` against a server that answers like the hub.

Every command runs in a new process, because libraries read HF_ENDPOINT and HOME on import.
"""

import re
from pathlib import Path

from pipelines.demo.demo_mirror import CAPTIONS_FILE
from tests.support.datasets import QUICK
from tests.support.hub import COMMIT, serve_hub
from tests.support.lrm import spawn_lrm


def test_a_build_from_the_hub_pins_a_commit_and_fetches_only_needed_files(
    demo_source: Path, tmp_path: Path
):
    words = ["--source", "objaverse", "--captions", demo_source / CAPTIONS_FILE, *QUICK]
    words += ["--root", tmp_path / "root", "--rig", "one2345", "--limit", "5", "--json"]
    with serve_hub(demo_source) as hub:
        requests = hub.requests
        environment = {
            "HF_ENDPOINT": hub.address,
            "HOME": str(tmp_path),
            "HF_HOME": str(tmp_path / "hf"),
        }
        status = spawn_lrm("build", *words, **environment).json()
        glbs = {path for path in requests if path.endswith(".glb") and path.startswith("GET")}
        assert status["listed"] == 5
        fetched = status["stages"]["fetch"]["done"]
        # A file that is malformed at the source is requested once and not stored.
        assert len(glbs) == fetched + status["failed"].get("malformed", 0) < 5
        assert all(f"/resolve/{COMMIT}/" in path for path in glbs)
        raw_names = [path.stem for path in tmp_path.glob("root/raw/*/*.glb")]
        assert len(raw_names) == fetched
        assert all(re.fullmatch("[0-9a-f]{64}", name) for name in raw_names)
        del requests[:]
        again = spawn_lrm("build", *words, **environment).json()
        assert again["stages"] == status["stages"]
        assert not [path for path in requests if path.endswith(".glb")]


def test_an_unreachable_hub_gives_one_line_of_error(tmp_path: Path):
    environment = {"HF_ENDPOINT": "http://127.0.0.1:1", "HOME": str(tmp_path)}
    answer = spawn_lrm("plan", "--source", "objaverse", "--root", tmp_path / "root", **environment)
    assert answer.code == 2
    (line,) = answer.err.strip().splitlines()
    assert "cannot look up" in line
    assert "HF_ENDPOINT" in line
