"""`lrm doctor`: missing or broken packages, the compiler, the LPIPS weights."""

import os
import sys
from pathlib import Path

import pytest
import torch

from pipelines.doctor import training
from pipelines.doctor.blender_child import check_child
from pipelines.doctor.packages import check_packages
from pipelines.doctor.probe import answer, probe
from pipelines.doctor.training import (
    check_compiler,
    check_deepspeed,
    check_lpips,
    check_nvdiffrast,
    check_torch,
)
from tests.support.lpips_weights import linear_weights, vgg_weights
from tests.support.paths import REPOSITORY
from tests.support.processes import environment_without


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("raise RuntimeError('broken on purpose')", "broken on purpose"),
        ("import no_such_package", "no_such_package is not installed"),
        ("import os; os.kill(os.getpid(), 11)", "SIGSEGV"),
    ],
)
def test_a_broken_package_that_shadows_the_installed_one_is_missing(
    tmp_path, monkeypatch, body, problem
):
    (tmp_path / "jinja2").mkdir()
    (tmp_path / "jinja2" / "__init__.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(REPOSITORY)]))
    broken, other = check_packages({"jinja2": "reports", "psutil": "memory"}, "build")
    assert (broken.what, broken.state, other.state) == ("jinja2", "missing", "ok")
    assert problem in broken.found
    if "purpose" in problem:
        origin = tmp_path / "jinja2" / "__init__.py"
        assert broken.remedy.startswith(f"unset PYTHONPATH  # {origin}")


def test_a_file_in_the_current_folder_does_not_shadow_a_package(tmp_path, monkeypatch):
    (tmp_path / "scipy.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    assert probe("package", "scipy").problem == ""


def without(folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let probes run in an environment without some packages."""
    monkeypatch.setattr(sys, "executable", str(environment_without(folder, *names)))


@pytest.mark.parametrize("name", ["bpy", "psutil"])
def test_a_missing_package_of_the_blender_child(tmp_path, monkeypatch, name):
    without(tmp_path, monkeypatch, name)
    child = check_child(probe("blender", "cpu"))
    assert child.state == "missing"
    assert name in child.found
    assert child.remedy == "pip install --constraint constraints.txt '.[build]'"


def test_missing_packages_of_training(tmp_path, monkeypatch):
    without(tmp_path, monkeypatch, "torch", "deepspeed", "xatlas", "diffusers")
    findings = [
        *check_torch(probe("cuda"), gpu_wanted=False),
        check_deepspeed(),
        *check_packages({"xatlas": "", "diffusers": ""}, "train"),
        check_lpips(None, None),
    ]
    names = [item.what for item in findings]
    assert names == ["torch", "deepspeed", "xatlas", "diffusers", "LPIPS weights"]
    for item in findings:
        assert item.state == "missing"
        assert item.remedy == "pip install --constraint constraints.txt '.[train]'"
        assert "is not installed" in item.found


def test_a_missing_compiler_is_a_note(tmp_path, monkeypatch):
    assert check_compiler().state in ("ok", "note")
    monkeypatch.setenv("CXX", "false")
    assert check_compiler().state == "note"
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = check_compiler()
    assert (finding.state, finding.found) == ("note", "no c++ in PATH")
    assert "apt-get install g++" in finding.remedy


def test_nvdiffrast_is_never_missing():
    assert check_nvdiffrast(on_gpu=False).state in ("ok", "note")
    assert check_nvdiffrast(on_gpu=True).state in ("ok", "note")


def test_missing_and_truncated_lpips_weights(tmp_path, monkeypatch):
    # Probes run in this process: importing PyTorch in a new process takes seconds.
    monkeypatch.setattr(training, "probe", answer)
    folder = tmp_path / "what is this"
    folder.mkdir()
    vgg, linear = folder / "vgg16.pth", folder / "linear.pth"
    torch.save(linear_weights(), linear)
    finding = check_lpips(str(vgg), str(linear))
    assert (finding.state, finding.found) == ("missing", f"{vgg} is missing")
    assert finding.remedy.startswith(f"curl --create-dirs --output '{vgg}' https://")
    vgg.write_bytes(b"half a downl")
    finding = check_lpips(str(vgg), str(linear))
    assert finding.state == "missing"
    assert finding.remedy.startswith(f"curl --create-dirs --output '{vgg}' https://")
    torch.save(vgg_weights(), vgg)
    finding = check_lpips(str(vgg), str(linear))
    assert finding.state == "ok", finding
    linear.unlink()
    finding = check_lpips(str(vgg), str(linear))
    assert (finding.state, finding.found) == ("missing", f"{linear} is missing")
