"""Checks of what training, inference and evaluation need."""

import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from core.paths.scratch import scratch_folder
from core.quantities import size
from pipelines.doctor.finding import Finding, State, install_command
from pipelines.doctor.packages import repair_command
from pipelines.doctor.probe import ProbeResult, probe

__all__ = [
    "check_compiler",
    "check_deepspeed",
    "check_hub_cache",
    "check_lpips",
    "check_nvdiffrast",
    "check_torch",
]

_NVDIFFRAST = "pip install --no-build-isolation git+https://github.com/NVlabs/nvdiffrast"
_CUDA_TORCH = "pip install --force-reinstall torch==2.13.0 --index-url INDEX  # a CUDA build"
_LPIPS = "pip install --no-deps --force-reinstall lpips==0.1.4"
_LPIPS_ADVICE = re.compile(": (?:download|give|set|pip install) ")
"""The beginning of the advice in an error of train.models.lpips."""
_LPIPS_DOWNLOAD = re.compile(
    r"LPIPS: (?P<path>.+) (?:is missing|is not a weight file \(.*\)): "
    r"download (?P<url>\S+) "
)
_SOURCE = """#include <Python.h>
#include <vector>
int answer() { return static_cast<int>(std::vector<int>(42).size()); }
"""


def check_torch(result: ProbeResult, *, gpu_wanted: bool) -> list[Finding]:
    """Check PyTorch and its GPUs, from the result of the probe `cuda`.

    Without a GPU the state is `note`, with `gpu_wanted` it is `missing`.
    """
    needed_for = "training, reconstruction, evaluation"
    if result.problem:
        remedy = repair_command(result, "train")
        return [
            Finding(
                what="torch",
                state="missing",
                found=result.problem,
                needed_for=needed_for,
                remedy=remedy,
            )
        ]
    report: dict[str, Any] = result.value
    build = f"for CUDA {report['cuda']}" if report["cuda"] else "without CUDA"
    torch = Finding(
        what="torch", state="ok", found=f"{report['version']}, {build}", needed_for=needed_for
    )
    state: State = "ok"
    remedy = ""
    if report["devices"]:
        text = ", ".join(f"{name} ({size(memory)})" for name, memory in report["devices"])
    else:
        state, text = "missing" if gpu_wanted else "note", report["why"] or "no CUDA device"
        remedy = "nvidia-smi  # must list a GPU: install its driver"
        if not report["cuda"] and Path("/dev/nvidiactl").exists():
            text, remedy = "there is a GPU, but PyTorch is a build without CUDA", _CUDA_TORCH
    device = Finding(
        what="CUDA",
        state=state,
        found=text,
        needed_for="training on GPUs, one per training worker (otherwise on CPUs)",
        remedy=remedy,
    )
    return [torch, device]


def check_deepspeed() -> Finding:
    """Check that DeepSpeed can be imported as training does."""
    result = probe("deepspeed")
    found = result.problem
    if not found:
        accelerator = result.value["accelerator"]
        found = f"{result.value['version']}, accelerator {accelerator}"
        found += " (DS_ACCELERATOR=cpu: PyTorch finds no GPU)" if accelerator == "cpu" else ""
    return Finding(
        what="deepspeed",
        state="missing" if result.problem else "ok",
        found=found,
        needed_for="lrm train",
        remedy=repair_command(result, "train") if result.problem else "",
    )


def check_compiler() -> Finding:
    """Compile a C++ file with Python's headers, as extensions of PyTorch are compiled."""
    name = os.environ.get("CXX", "c++")
    problem = "" if shutil.which(name) else f"no {name} in PATH"
    if not problem:
        with scratch_folder("compiler") as folder:
            source = Path(folder) / "try.cpp"
            source.write_text(_SOURCE)
            include = f"-I{sysconfig.get_path('include')}"
            command = [name, "-shared", "-fPIC", include, str(source), "-o", f"{folder}/try.so"]
            process = subprocess.run(
                command, check=False, capture_output=True, text=True, errors="replace"
            )
            errors = [line for line in process.stderr.splitlines() if "error" in line]
            if process.returncode:
                problem = f"{name}: {errors[0] if errors else f'exit code {process.returncode}'}"
    sudo = "" if os.geteuid() == 0 else "sudo "
    return Finding(
        what="C++ compiler",
        state="note" if problem else "ok",
        found=problem or f"{shutil.which(name)}, with Python's headers",
        needed_for="only nvdiffrast, and DeepSpeed operators that --deepspeed enables",
        remedy=f"{sudo}apt-get install g++ python3.11-dev" if problem else "",
    )


def check_nvdiffrast(*, on_gpu: bool) -> Finding:
    """Check nvdiffrast, which is optional: it makes rasterization faster on CUDA."""
    result = probe("package", "nvdiffrast.torch")
    absent = result.problem == "nvdiffrast is not installed"
    state: State
    if not result.problem:
        state, found = "ok", result.value["version"]
    elif absent and not on_gpu:
        state, found = "ok", "not installed, not needed without CUDA"
    else:
        state, found = "note", result.problem
    return Finding(
        what="nvdiffrast",
        state=state,
        found=found,
        needed_for="faster rasterization of meshes on CUDA (otherwise PyTorch)",
        remedy=_NVDIFFRAST if state == "note" else "",
    )


def check_lpips(vgg: str | None, linear: str | None) -> Finding:
    """Load the weights of LPIPS from these files, or by default from their usual paths."""
    result = probe("lpips", vgg or "", linear or "")
    problem = _LPIPS_ADVICE.split(result.problem.removeprefix("LPIPS: "))[0]
    return Finding(
        what="LPIPS weights",
        state="missing" if problem else "ok",
        found=problem or ", ".join(result.value),
        needed_for="train nerf and mesh (not with --loss.lpips 0), evaluate (not with --no-lpips)",
        remedy=_lpips_remedy(result.problem) if problem else "",
    )


def _lpips_remedy(problem: str) -> str:
    """Return the command that follows the advice in an error of train.models.lpips."""
    download = _LPIPS_DOWNLOAD.match(problem)
    if download is not None:
        return f"curl --create-dirs --output {shlex.quote(download['path'])} {download['url']}"
    return install_command("train") if problem.endswith("is not installed") else _LPIPS


def check_hub_cache() -> Finding:
    """List the models in the hub's cache, where a repository's name is looked up."""
    result = probe("hub_cache")
    models = [] if result.problem else result.value["models"]
    listed = ", ".join(models) or "no models"
    return Finding(
        what="hub cache",
        state="ok" if models else "note",
        found=result.problem or f"{result.value['folder']}: {listed}",
        needed_for="Zero123++ by the name of its repository (not for a local folder)",
        remedy="" if models else "hf download sudo-ai/zero123plus-v1.2",
    )
