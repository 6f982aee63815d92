"""`lrm doctor` on this machine, and its checks after something on it is broken on purpose."""

import argparse
import json
import subprocess

import pytest
import torch

from pipelines.cli.commands import doctor as doctor_command
from pipelines.doctor import machine
from pipelines.sources.objaverse import OBJECT_PATHS
from tests.support.findings import findings, findings_by_name, run_in_shell
from tests.support.hub import COMMIT, serve_hub
from tests.support.lrm import run_lrm, spawn_lrm


@pytest.fixture(scope="module")
def namespaces() -> None:
    if run_in_shell("true", unshare=True).code:
        pytest.skip("this system has no user namespaces")


def test_the_whole_report_of_this_machine():
    result = run_lrm("doctor", "--json")
    report = json.loads(result.out)
    assert list(report["groups"]) == ["build", "gpu", "train"]
    items_of_all_groups = [item for items in report["groups"].values() for item in items]
    missing = [item["what"] for item in items_of_all_groups if item["state"] == "missing"]
    assert report["missing"] == len(missing)
    assert result.code == (1 if missing else 0)
    assert set(missing) <= {"LPIPS weights"}, "an environment for the tests has all packages"
    for item in items_of_all_groups:
        assert item["found"] and item["needed_for"], item
        assert bool(item["remedy"]) == (item["state"] != "ok"), item
    names = {group: {item["what"] for item in items} for group, items in report["groups"].items()}
    checks = {"system libraries", "Blender child", "network namespace", "shared memory"}
    assert names["build"] >= checks | {"scratch folder", "open files", "ray", "jinja2"}
    assert names["train"] >= {"torch", "CUDA", "deepspeed", "xatlas", "diffusers", "LPIPS weights"}
    build, train = findings_by_name(result), findings_by_name(result, "train")
    assert build["Blender child"]["found"].startswith("Blender 4.5.")
    assert train["torch"]["found"].startswith(torch.__version__)
    if not torch.cuda.is_available():
        assert train["CUDA"]["state"] == "note"
        assert "DS_ACCELERATOR=cpu" in train["deepspeed"]["found"]
    assert findings_by_name(result, "gpu")["GPU"]["state"] in ("ok", "note")


def test_a_gpu_and_the_hub_are_required_only_on_request(tmp_path):
    (tmp_path / OBJECT_PATHS).write_bytes(b"listing")
    words = ["doctor", "--for", "gpu", "--online", "--json"]
    with serve_hub(tmp_path) as hub:
        result = spawn_lrm(*words, HF_ENDPOINT=hub.address)
        finding = findings_by_name(result, "reach")["Objaverse"]
        assert finding["state"] == "ok", finding
        assert COMMIT in finding["found"]
        assert hub.requests[-1].endswith(OBJECT_PATHS)
        assert len(hub.ranges) == 1, "the file is requested from the redirect target"
        (tmp_path / OBJECT_PATHS).unlink()
        (finding,) = findings("hub", HF_ENDPOINT=hub.address).values()
        assert finding["state"] == "missing"
        assert OBJECT_PATHS in finding["found"]
    assert list(json.loads(result.out)["groups"]) == ["gpu", "reach"]
    gpu = findings_by_name(result, "gpu")["GPU"]
    if gpu["state"] == "ok":
        pytest.skip("this machine has a GPU")
    assert (gpu["state"], result.code) == ("missing", 1)


def test_the_remedy_is_a_command_on_a_line_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "not yet"))
    checks = (machine.check_memory, machine.check_scratch, machine.check_open_files)
    build = {"build": lambda: [check() for check in checks]}
    monkeypatch.setattr(doctor_command, "_checks", lambda arguments: build)

    def doctor() -> tuple[int, list[str]]:
        code = doctor_command.COMMAND.run(argparse.Namespace(json=False))
        return code, capsys.readouterr().out.splitlines()

    code, lines = doctor()
    assert (code, lines[-1]) == (1, "missing: scratch folder")
    remedy = next(line for line in lines if line.startswith("scratch folder: "))
    subprocess.run(["bash", "-c", remedy.removeprefix("scratch folder: ")], check=True)
    code, lines = doctor()
    assert (code, lines[-1]) == (0, "missing: nothing"), lines


def test_a_library_that_cannot_be_loaded(tmp_path):
    (tmp_path / "libXi.so.6").write_bytes(b"")
    checks = findings("libraries", "child", LD_LIBRARY_PATH=str(tmp_path))
    for name in ("system libraries", "Blender child"):
        assert checks[name]["state"] == "missing"
        assert checks[name]["remedy"].endswith("apt-get install -y --no-install-recommends libxi6")
    assert "libXi" in checks["Blender child"]["found"]


def test_a_low_limit_of_open_files_is_missing():
    finding = findings("open_files", before="ulimit -n 1000")["open files"]
    assert finding["state"] == "missing"
    assert "at most 1000" in finding["found"]
    assert "65536" in finding["remedy"]


def test_no_space_for_temporary_files_and_little_shared_memory(namespaces, tmp_path):
    mounts = f"mount -t tmpfs -o size=16m x /dev/shm; mount -t tmpfs -o size=90m x {tmp_path}"
    environment = {"TMPDIR": str(tmp_path)}
    checks = findings("scratch", "shared_memory", before=mounts, unshare=True, **environment)
    assert checks["scratch folder"]["state"] == "missing"
    assert "frames" in checks["scratch folder"]["found"]
    assert checks["shared memory"]["state"] == "note"


def test_a_folder_that_cannot_be_written(namespaces, tmp_path):
    mounts = f"mount -t tmpfs -o ro x /dev/shm; mount -t tmpfs -o ro x {tmp_path}"
    environment = {"TMPDIR": str(tmp_path)}
    checks = findings("scratch", "shared_memory", before=mounts, unshare=True, **environment)
    for name in ("scratch folder", "shared memory"):
        assert checks[name]["state"] == "missing"
        assert "Read-only file system" in checks[name]["found"]


def test_a_system_without_network_namespaces(namespaces):
    forbid = "for kind in user net; do echo 0 > /proc/sys/user/max_${kind}_namespaces; done"
    attempt = run_in_shell(forbid, unshare=True)
    if "Permission denied" in attempt.err or "Read-only" in attempt.err:
        pytest.skip("user namespaces cannot change the settings of this system")
    checks = findings("child", before=forbid, unshare=True)
    assert checks["Blender child"]["state"] == "ok", "a build works without namespaces"
    assert checks["network namespace"]["state"] == "note"
    remedy = "sysctl -w user.max_user_namespaces=15000"
    assert checks["network namespace"]["remedy"] == remedy


def test_bad_input_gives_one_line_of_error():
    answer = run_lrm("doctor", "--for", "everything")
    assert answer.code == 2
    assert len(answer.err.splitlines()) == 1
