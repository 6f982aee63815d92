"""What training, inference and evaluation need."""

import os
import re
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from core.quantities import size
from pipelines.doctor.finding import Finding, State, install_line
from pipelines.doctor.packages import mending_line
from pipelines.doctor.probe import Probed, probe

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
_ADVICE = re.compile(": (?:download|name|pip install) ")
_DOWNLOAD = re.compile(
    r"LPIPS: (?P<path>.+) (?:is missing|is no weight file .*|holds no weights by name): "
    r"download (?P<url>\S+) "
)
_SOURCE = """#include <Python.h>
#include <vector>
int answer() { return static_cast<int>(std::vector<int>(42).size()); }
"""


def check_torch(tried: Probed, *, gpu_wanted: bool) -> list[Finding]:
    """PyTorch and its GPUs, by the probe `cuda`; none is a note, unless one is wanted."""
    needed_for = "training, reconstruction, evaluation"
    if tried.problem:
        remedy = mending_line(tried, "train")
        return [
            Finding(
                what="torch",
                state="missing",
                found=tried.problem,
                needed_for=needed_for,
                remedy=remedy,
            )
        ]
    found: dict[str, Any] = tried.found
    of = f"for CUDA {found['cuda']}" if found["cuda"] else "without CUDA"
    torch = Finding(
        what="torch", state="ok", found=f"{found['version']}, {of}", needed_for=needed_for
    )
    state: State = "ok"
    remedy = ""
    if found["devices"]:
        text = ", ".join(f"{name} ({size(memory)})" for name, memory in found["devices"])
    else:
        state, text = "missing" if gpu_wanted else "note", found["why"] or "no CUDA device"
        remedy = "nvidia-smi  # must list a GPU: install one with its driver"
        if not found["cuda"] and Path("/dev/nvidiactl").exists():
            text, remedy = "a GPU is here, but this torch has no CUDA", _CUDA_TORCH
    device = Finding(
        what="CUDA",
        state=state,
        found=text,
        needed_for="one training worker per GPU; without one, a CPU",
        remedy=remedy,
    )
    return [torch, device]


def check_deepspeed() -> Finding:
    """Import it as training does."""
    tried = probe("deepspeed")
    found = tried.problem
    if not found:
        chosen = tried.found["accelerator"]
        found = f"{tried.found['version']}, accelerator {chosen}"
        found += " (DS_ACCELERATOR=cpu: torch has no GPU)" if chosen == "cpu" else ""
    return Finding(
        what="deepspeed",
        state="missing" if tried.problem else "ok",
        found=found,
        needed_for="lrm train",
        remedy=mending_line(tried, "train") if tried.problem else "",
    )


def check_compiler() -> Finding:
    """Compile a file as PyTorch's extensions are: with C++ and Python's headers."""
    name = os.environ.get("CXX", "c++")
    problem = "" if shutil.which(name) else f"no {name} in PATH"
    if not problem:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "try.cpp"
            source.write_text(_SOURCE)
            include = f"-I{sysconfig.get_path('include')}"
            command = [name, "-shared", "-fPIC", include, str(source), "-o", f"{folder}/try.so"]
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, errors="replace"
            )
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            if done.returncode:
                problem = f"{name}: {errors[0] if errors else f'exit code {done.returncode}'}"
    sudo = "" if os.geteuid() == 0 else "sudo "
    return Finding(
        what="C++ compiler",
        state="note" if problem else "ok",
        found=problem or f"{shutil.which(name)}, with Python's headers",
        needed_for="nvdiffrast, operators that --deepspeed asks for; nothing else here compiles",
        remedy=f"{sudo}apt-get install g++ python3.11-dev" if problem else "",
    )


def check_nvdiffrast(*, on_gpu: bool) -> Finding:
    """Faster on CUDA, and nothing needs it."""
    tried = probe("package", "nvdiffrast.torch")
    absent = tried.problem == "nvdiffrast is not installed"
    state: State
    if not tried.problem:
        state, found = "ok", tried.found["version"]
    elif absent and not on_gpu:
        state, found = "ok", "not installed; of no use without CUDA"
    else:
        state, found = "note", tried.problem
    return Finding(
        what="nvdiffrast",
        state=state,
        found=found,
        needed_for="rasterizing meshes on CUDA; torch does it without",
        remedy=_NVDIFFRAST if state == "note" else "",
    )


def check_lpips(vgg: str | None, linear: str | None) -> Finding:
    """Read the weights of the perceptual loss: those named, or where they are looked for."""
    tried = probe("lpips", vgg or "", linear or "")
    problem = _ADVICE.split(tried.problem.removeprefix("LPIPS: "))[0]
    return Finding(
        what="LPIPS weights",
        state="missing" if problem else "ok",
        found=problem or ", ".join(tried.found),
        needed_for="nerf and mesh (--loss.lpips 0 does without), lrm evaluate (--no-lpips)",
        remedy=_lpips_remedy(tried.problem) if problem else "",
    )


def _lpips_remedy(problem: str) -> str:
    """The command in the problem's own advice."""
    if "lpips wheel, which is not installed" in problem:
        return _LPIPS
    download = _DOWNLOAD.match(problem)
    if download is not None:
        return f"curl --create-dirs --output {shlex.quote(download['path'])} {download['url']}"
    return install_line("train") if problem.endswith("is not installed") else _LPIPS


def check_hub_cache() -> Finding:
    """Where weights that are named like a repository are looked for."""
    tried = probe("hub_cache")
    models = [] if tried.problem else tried.found["models"]
    listed = ", ".join(models) or "no models"
    return Finding(
        what="hub cache",
        state="ok" if models else "note",
        found=tried.problem or f"{tried.found['folder']}: {listed}",
        needed_for="Zero123++ by its repository's name; a folder does as well",
        remedy="" if models else "hf download sudo-ai/zero123plus-v1.2",
    )
