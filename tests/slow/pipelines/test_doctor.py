"""`lrm doctor` in a process of its own where packages are missing or broken."""

import os

import pytest

from tests.support.findings import findings_by_name
from tests.support.lrm import spawn_lrm
from tests.support.paths import REPOSITORY
from tests.support.processes import environment_without


def test_missing_packages_of_builds_and_of_training_are_named(tmp_path):
    missing = ("torch", "deepspeed", "xatlas", "diffusers")
    python = environment_without(tmp_path, "bpy", "psutil", *missing)
    answer = spawn_lrm("doctor", "--for", "build", "--for", "train", "--json", python=python)
    assert answer.code == 1, answer.err
    child = findings_by_name(answer)["Blender child"]
    assert child["state"] == "missing"
    assert "bpy" in child["found"] or "psutil" in child["found"]
    assert child["remedy"] == "pip install --constraint constraints.txt '.[build]'"
    findings = findings_by_name(answer, "train")
    for name in (*missing, "LPIPS weights"):
        assert findings[name]["state"] == "missing"
        assert findings[name]["remedy"] == "pip install --constraint constraints.txt '.[train]'"
        assert "is not installed" in findings[name]["found"]


@pytest.mark.parametrize(
    "body", ["raise RuntimeError('broken on purpose')", "import os; os.kill(os.getpid(), 11)"]
)
def test_only_the_broken_package_is_reported(tmp_path, body):
    (tmp_path / "jinja2").mkdir()
    (tmp_path / "jinja2" / "__init__.py").write_text(body)
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    answer = spawn_lrm("doctor", "--for", "build", "--json", PYTHONPATH=path)
    assert answer.code == 1
    findings = findings_by_name(answer)
    assert [name for name, item in findings.items() if item["state"] == "missing"] == ["jinja2"]
