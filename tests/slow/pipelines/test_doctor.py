"""`lrm doctor` as a process on a machine where packages are missing or broken."""

import os

import pytest

from tests.support.findings import by_name
from tests.support.lrm import spawn_lrm
from tests.support.paths import REPOSITORY
from tests.support.processes import environment_without


def test_a_machine_without_the_packages_of_a_build_and_of_training(tmp_path):
    gone = ("torch", "deepspeed", "xatlas", "diffusers")
    python = environment_without(tmp_path, "bpy", "psutil", *gone)
    answer = spawn_lrm("doctor", "--for", "build", "--for", "train", "--json", python=python)
    assert answer.code == 1, answer.err
    child = by_name(answer)["Blender child"]
    assert child["state"] == "missing"
    assert "bpy" in child["found"] or "psutil" in child["found"]
    assert child["remedy"] == "pip install --constraint constraints.txt '.[build]'"
    found = by_name(answer, "train")
    for name in (*gone, "LPIPS weights"):
        assert found[name]["state"] == "missing"
        assert found[name]["remedy"] == "pip install --constraint constraints.txt '.[train]'"
        assert "is not installed" in found[name]["found"]


@pytest.mark.parametrize(
    "body", ["raise RuntimeError('broken on purpose')", "import os; os.kill(os.getpid(), 11)"]
)
def test_a_broken_package_alone_is_missing(tmp_path, body):
    (tmp_path / "jinja2").mkdir()
    (tmp_path / "jinja2" / "__init__.py").write_text(body)
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    answer = spawn_lrm("doctor", "--for", "build", "--json", PYTHONPATH=path)
    assert answer.code == 1
    found = by_name(answer)
    assert [name for name, item in found.items() if item["state"] == "missing"] == ["jinja2"]
