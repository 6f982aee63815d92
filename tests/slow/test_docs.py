"""The commands of README and of the guides that need no cluster."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.pages import blocks
from tests.support.paths import REPOSITORY

README, GUIDE = REPOSITORY / "README.md", REPOSITORY / "docs/guide"
QUICKSTART = GUIDE / "quickstart.md"
ONE_DATASET = ("building.md", "refreshing.md", "maintenance.md")
"""Guides that use the dataset of the first one."""
MARKS = {"checkout", "internet", "cluster"}
"""Words after ```bash that mark blocks which a test cannot run, by what they need."""


def run_as_written(page: Path, folder: Path) -> str:
    """Run the unmarked blocks of a page in order, in that folder, and return their output."""
    marks = {mark for mark, _ in blocks(page)} - {""}
    assert marks <= MARKS
    script = "\n".join(text for mark, text in blocks(page) if not mark)
    # PATH as after activating this environment. One thread, because PyTorch's threads mostly wait
    # for each other when other tests run at the same time.
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": paths, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_readme_works_as_written(tmp_path):
    assert "fetch" in run_as_written(README, tmp_path)


def test_the_quickstart_works_as_written(tmp_path):
    printed = run_as_written(QUICKSTART, tmp_path)
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    documented = [line for _, text in blocks(QUICKSTART, "text") for line in text.splitlines()]
    assert [line for line in documented if " ".join(line.split()) not in lines] == []
    for name in ("mug.png", "report/report.html", "nerf/previews/step-00000010.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    for name in ("nerf.safetensors", "scores/summary.json", "mug.glb"):
        assert (tmp_path / name).exists()


def test_the_guides_of_a_dataset_work_as_written_in_order(tmp_path):
    printed = "".join(run_as_written(GUIDE / page, tmp_path) for page in ONE_DATASET)
    assert "nothing to do" in printed
    assert (tmp_path / "report/report.html").stat().st_size > 10_000
    assert (tmp_path / "mug.png").stat().st_size > 10_000


def test_the_example_of_pixel2mesh_works_as_written(tmp_path):
    assert "camera: azimuth" in run_as_written(GUIDE / "train-pixel2mesh.md", tmp_path)
    kinds = [line[:2] for line in (tmp_path / "mesh.obj").read_text().splitlines()]
    assert (kinds.count("v "), kinds.count("f ")) == (642, 1280)  # the ellipsoid of `tiny`
