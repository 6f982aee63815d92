"""`lrm doctor` on this machine, and on the same one with something really broken."""

import json
import os
import shlex
import socket
import subprocess
import sys
from typing import Any

import pytest
import torch

from core.storage import Storage
from pipelines.doctor.probe import probe
from pipelines.doctor.reach import check_root_uri
from pipelines.doctor.training import check_compiler, check_lpips, check_nvdiffrast
from pipelines.sources.objaverse import OBJECT_PATHS
from tests.support.hub import COMMIT, serve_hub
from tests.support.lpips_weights import linear_weights, vgg_weights
from tests.support.lrm import Answer, run_lrm
from tests.support.paths import REPOSITORY
from tests.support.processes import environment_without, run_in

DOCTOR = f"{shlex.quote(sys.executable)} -m pipelines.cli doctor"


def by_name(answer: Answer, group: str = "build") -> dict[str, dict[str, str]]:
    """The findings of a group, whatever the exit code."""
    found = json.loads(answer.out)["groups"][group]
    return {item["what"]: item for item in found}


def in_shell(command: str, *, unshare: bool = False) -> Answer:
    """`lrm doctor` behind other commands in bash, in namespaces of its own if asked."""
    words = ["unshare", "--map-root-user", "--mount"] if unshare else []
    done = subprocess.run(
        [*words, "bash", "-c", command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd="/",
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def namespaces() -> None:
    if in_shell("true", unshare=True).code:
        pytest.skip("this system has no user namespaces")


@pytest.fixture(scope="module")
def whole() -> Answer:
    return run_lrm("doctor", "--json")


def test_what_is_said_of_this_machine(whole):
    answer = json.loads(whole.out)
    assert list(answer["groups"]) == ["build", "gpu", "train"]
    found = [item for items in answer["groups"].values() for item in items]
    missing = [item["what"] for item in found if item["state"] == "missing"]
    assert answer["missing"] == len(missing)
    assert whole.code == (1 if missing else 0)
    assert set(missing) <= {"LPIPS weights"}, "whoever runs the tests has all packages"
    for item in found:
        assert item["found"] and item["needed_for"], item
        assert bool(item["remedy"]) == (item["state"] != "ok"), item


def test_what_is_found_is_what_is_there(whole):
    build, train = by_name(whole), by_name(whole, "train")
    assert build["Blender child"]["found"].startswith("Blender 4.5.")
    assert train["torch"]["found"].startswith(torch.__version__)
    if not torch.cuda.is_available():
        assert train["CUDA"]["state"] == "note"
        assert "DS_ACCELERATOR=cpu" in train["deepspeed"]["found"]


def test_a_gpu_is_missing_only_for_who_asks_for_one(whole):
    gpu = by_name(whole, "gpu")["GPU"]
    if gpu["state"] == "ok":
        pytest.skip("this machine has a GPU")
    assert gpu["state"] == "note"
    asked = run_lrm("doctor", "--for", "gpu", "--json")
    assert asked.code == 1
    assert list(json.loads(asked.out)["groups"]) == ["gpu"]
    assert by_name(asked, "gpu")["GPU"]["state"] == "missing"


def test_tables_name_the_remedy_on_a_line_of_its_own(tmp_path):
    nowhere = tmp_path / "not yet"
    answer = run_lrm("doctor", "--for", "build", TMPDIR=str(nowhere))
    assert answer.code == 1
    lines = answer.out.splitlines()
    assert lines[-1] == "missing: scratch folder"
    remedy = next(line for line in lines if line.startswith("scratch folder: "))
    subprocess.run(["bash", "-c", remedy.removeprefix("scratch folder: ")], check=True)
    mended = run_lrm("doctor", "--for", "build", TMPDIR=str(nowhere))
    assert mended.code == 0, mended.out
    assert mended.out.splitlines()[-1] == "missing: nothing"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise RuntimeError('broken on purpose')", "broken on purpose"),
        ("import no_such_package", "no_such_package is not installed"),
        ("import os; os.kill(os.getpid(), 11)", "SIGSEGV"),
    ],
)
def test_a_broken_package_before_the_installed_one(tmp_path, body, says):
    (tmp_path / "jinja2").mkdir()
    (tmp_path / "jinja2" / "__init__.py").write_text(body)
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    answer = run_lrm("doctor", "--for", "build", "--json", PYTHONPATH=path)
    assert answer.code == 1
    found = by_name(answer)
    assert [name for name, item in found.items() if item["state"] == "missing"] == ["jinja2"]
    assert says in found["jinja2"]["found"]
    if "purpose" in says:
        origin = tmp_path / "jinja2" / "__init__.py"
        assert found["jinja2"]["remedy"].startswith(f"unset PYTHONPATH  # {origin}")


def test_a_file_in_the_current_folder_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "scipy.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    assert probe("package", "scipy").problem == ""


@pytest.mark.parametrize("name", ["bpy", "psutil"])
def test_without_a_package_that_blender_needs(tmp_path, name):
    answer = run_in(environment_without(tmp_path, name), "doctor", "--for", "build", "--json")
    assert answer.code == 1, answer.err
    child = by_name(answer)["Blender child"]
    assert child["state"] == "missing"
    assert name in child["found"]
    assert child["remedy"] == "pip install --constraint constraints.txt '.[build]'"


def test_without_the_packages_of_training(tmp_path):
    gone = ("torch", "deepspeed", "xatlas", "diffusers")
    python = environment_without(tmp_path, *gone)
    answer = run_in(python, "doctor", "--for", "train", "--json")
    assert answer.code == 1, answer.err
    found = by_name(answer, "train")
    for name in (*gone, "LPIPS weights"):
        assert found[name]["state"] == "missing"
        assert found[name]["remedy"] == "pip install --constraint constraints.txt '.[train]'"
        assert "is not installed" in found[name]["found"]


def test_a_library_that_cannot_be_loaded(tmp_path):
    (tmp_path / "libXi.so.6").write_bytes(b"")
    answer = run_lrm("doctor", "--for", "build", "--json", LD_LIBRARY_PATH=str(tmp_path))
    found = by_name(answer)
    assert answer.code == 1
    for name in ("system libraries", "Blender child"):
        assert found[name]["state"] == "missing"
        assert found[name]["remedy"].endswith("apt-get install -y --no-install-recommends libxi6")
    assert "libXi" in found["Blender child"]["found"]


def test_few_open_files():
    answer = in_shell(f"ulimit -n 1000; {DOCTOR} --for build --json")
    found = by_name(answer)["open files"]
    assert answer.code == 1
    assert found["state"] == "missing"
    assert "at most 1000" in found["found"]
    assert "65536" in found["remedy"]


def test_no_space_for_temporary_files_and_little_shared_memory(namespaces, tmp_path):
    command = (
        f"mount -t tmpfs -o size=16m x /dev/shm; mount -t tmpfs -o size=90m x {tmp_path}; "
        f"TMPDIR={tmp_path} {DOCTOR} --for build --json"
    )
    answer = in_shell(command, unshare=True)
    found = by_name(answer)
    assert answer.code == 1
    assert found["scratch folder"]["state"] == "missing"
    assert "frames" in found["scratch folder"]["found"]
    assert found["shared memory"]["state"] == "note"


def test_a_folder_that_cannot_be_written(namespaces, tmp_path):
    command = (
        f"mount -t tmpfs -o ro x /dev/shm; mount -t tmpfs -o ro x {tmp_path}; "
        f"TMPDIR={tmp_path} {DOCTOR} --for build --json"
    )
    answer = in_shell(command, unshare=True)
    found = by_name(answer)
    assert answer.code == 1
    for name in ("scratch folder", "shared memory"):
        assert found[name]["state"] == "missing"
        assert "Read-only file system" in found[name]["found"]


def test_a_system_that_does_not_take_the_network_away(namespaces):
    forbid = "for kind in user net; do echo 0 > /proc/sys/user/max_${kind}_namespaces; done"
    answer = in_shell(f"{forbid}; {DOCTOR} --for build --json", unshare=True)
    if "Permission denied" in answer.err or "Read-only" in answer.err:
        pytest.skip("this system keeps its settings from user namespaces")
    found = by_name(answer)["network namespace"]
    assert answer.code == 0, "a build works all the same"
    assert found["state"] == "note"
    assert found["remedy"] == "sysctl -w user.max_user_namespaces=15000"


def test_compilers(tmp_path, monkeypatch):
    assert check_compiler().state in ("ok", "note")
    monkeypatch.setenv("CXX", "false")
    assert check_compiler().state == "note"
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = check_compiler()
    assert (found.state, found.found) == ("note", "no c++ in PATH")
    assert "apt-get install g++" in found.remedy


def test_nvdiffrast_is_never_missing():
    assert check_nvdiffrast(on_gpu=False).state in ("ok", "note")
    assert check_nvdiffrast(on_gpu=True).state in ("ok", "note")


def test_the_weights_of_lpips_are_read(tmp_path):
    vgg, linear = tmp_path / "vgg16.pth", tmp_path / "linear.pth"
    torch.save(linear_weights(), linear)
    found = check_lpips(str(vgg), str(linear))
    assert (found.state, found.found) == ("missing", f"{vgg} is missing")
    assert found.remedy.startswith(f"curl --create-dirs --output {vgg} https://")
    vgg.write_bytes(b"half a downl")
    found = check_lpips(str(vgg), str(linear))
    assert found.state == "missing"
    assert found.remedy.startswith(f"curl --create-dirs --output {vgg} https://")
    torch.save(vgg_weights(), vgg)
    assert check_lpips(str(vgg), str(linear)).state == "ok"


def ask_hub(address: str) -> dict[str, str]:
    answer = run_lrm("doctor", "--for", "gpu", "--online", "--json", HF_ENDPOINT=address)
    return by_name(answer, "reach")["Objaverse"]


def test_the_hub_is_asked_if_it_is_asked_for(tmp_path):
    (tmp_path / OBJECT_PATHS).write_bytes(b"listing")
    with serve_hub(tmp_path) as hub:
        found = ask_hub(hub.address)
        assert found["state"] == "ok", found
        assert COMMIT in found["found"]
        assert hub.asked[-1].endswith(OBJECT_PATHS)
        assert len(hub.ranges) == 1, "the file comes from where the hub sends its clients"
        (tmp_path / OBJECT_PATHS).unlink()
        found = ask_hub(hub.address)
        assert found["state"] == "missing"
        assert OBJECT_PATHS in found["found"]


def test_a_hub_that_is_not_there():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = ask_hub(f"http://127.0.0.1:{port}")
    assert found["state"] == "missing"
    assert "HF_ENDPOINT" in found["remedy"]


def states(uri: str) -> dict[str, Any]:
    return {item.what: item.state for item in check_root_uri(uri)}


def test_a_root_on_disk(sphere_dataset, tmp_path):
    root, _ = sphere_dataset
    assert states(root.uri) == {"root": "ok"}
    assert states(str(tmp_path / "new")) == {"root": "ok"}
    (tmp_path / "foreign.txt").write_text("")
    assert states(str(tmp_path)) == {"root": "missing"}
    assert states("nonsense://x") == {"root": "missing"}


def test_a_root_in_s3(bucket, monkeypatch, tmp_path):
    uri = f"s3://{bucket.name}/root"
    assert states(uri) == {"S3 credentials": "ok", "root": "ok"}
    assert states("s3://no-such-bucket-here/root")["root"] == "missing"
    Storage(uri).write("dataset.json", b'{"format": 999}')
    assert states(uri)["root"] == "missing"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert states(uri)["S3 credentials"] == "missing"


def test_bad_input_is_one_line():
    answer = run_lrm("doctor", "--for", "everything")
    assert answer.code == 2
    assert len(answer.err.splitlines()) == 1
