"""Probes that run in a process of their own: imports that may crash, devices, weights.

`python -m pipelines.doctor.probe NAME [ARGUMENT ...]` prints the result as JSON in its last line.
"""

import importlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.errors import LrmError, WorkFailed
from core.failures import FailureKind

__all__ = ["Probed", "answer", "main", "probe"]

_PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Probed:
    """The result of a probe."""

    found: Any
    """The returned value; None if the probe failed."""
    problem: str
    """Why the probe failed; empty if it succeeded."""
    where: str = ""
    """The file that raised the error; empty if a module is not installed."""


def probe(name: str, *arguments: str, seconds: float = 240.0) -> Probed:
    """Run a probe in a new process with the user's import path, for at most `seconds`."""
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(_PROJECT)]))
    try:
        process = subprocess.run(
            # -P: the current folder is not searched, where a file may have a package's name.
            [sys.executable, "-P", "-m", "pipelines.doctor.probe", name, *arguments],
            env=os.environ | {"PYTHONPATH": path},
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return Probed(found=None, problem=f"no result within {seconds:g} s")
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        return Probed(found=None, problem=f"the process of this check was killed by {name}")
    try:
        return Probed(**json.loads(process.stdout.splitlines()[-1]))
    except (ValueError, IndexError, TypeError):
        lines = [line for line in process.stderr.splitlines() if line.strip()]
        problem = lines[-1].strip() if lines else f"exit code {process.returncode}"
        return Probed(found=None, problem=problem)


def _package(name: str) -> dict[str, str]:
    """Import a package; return its version and its file."""
    module = importlib.import_module(name)
    version = str(getattr(module, "__version__", ""))
    if not version:
        owners = importlib.metadata.packages_distributions().get(name, [])
        version = importlib.metadata.version(owners[0]) if owners else "of unknown version"
    return {"version": version, "where": module.__file__ or ""}


def _blender(device: str) -> dict[str, Any]:
    """Start a Blender child; return its `ChildReport` as plain data."""
    from render.process import BlenderProcess, RenderFailure
    from render.render_config import BlenderLimits

    limits = BlenderLimits(threads=len(os.sched_getaffinity(0)))
    try:
        with BlenderProcess(limits, device=device) as blender:
            return asdict(blender.look())
    except RenderFailure as error:
        lines = [line.strip() for line in (error.log_tail or "").splitlines() if line.strip()]
        last = f": {lines[-1]}" if lines and error.kind is FailureKind.NO_START else ""
        raise WorkFailed(f"{error}{last}") from None


def _cuda() -> dict[str, Any]:
    """Return the GPUs that PyTorch finds, and the warning that explains why it finds none."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        usable = torch.cuda.is_available()
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "devices": [[device.name, device.total_memory] for device in devices] if usable else [],
        "why": " ".join(str(caught[0].message).split()) if caught and not usable else "",
    }


def _deepspeed() -> dict[str, str]:
    """Import DeepSpeed as training does; return its version and accelerator."""
    from train.settings.accelerator import choose_accelerator

    choose_accelerator()
    version = _package("deepspeed")["version"]
    chosen = importlib.import_module("deepspeed.accelerator").get_accelerator()
    return {"version": version, "accelerator": str(chosen.device_name())}


def _lpips(vgg: str, linear: str) -> list[str]:
    """Load the weights of LPIPS; return their files."""
    from train.models.lpips import LpipsConfig, find_weights, load_lpips

    config = LpipsConfig(vgg=vgg or None, linear=linear or None)
    load_lpips(config)
    return [str(path) for path in find_weights(config)]


def _hub_cache() -> dict[str, Any]:
    """Return the cache folder of the Hugging Face hub, and the models in it."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = [path.name for path in sorted(Path(HF_HUB_CACHE).glob("models--*"))]
    models = [name.removeprefix("models--").replace("--", "/") for name in folders]
    return {"folder": HF_HUB_CACHE, "models": models}


_PROBES: Mapping[str, Callable[..., Any]] = {
    "package": _package,
    "blender": _blender,
    "cuda": _cuda,
    "deepspeed": _deepspeed,
    "lpips": _lpips,
    "hub_cache": _hub_cache,
}


def main() -> int:
    """Run the probe that is named on the command line, and print its result."""
    print(f"\n{json.dumps(asdict(answer(*sys.argv[1:])))}", flush=True)
    return 0


def answer(name: str, *arguments: str) -> Probed:
    """Run a probe in this process."""
    try:
        return Probed(found=_PROBES[name](*arguments), problem="")
    except Exception as error:  # noqa: BLE001 - any error of a package is the result
        return _failed(error)


def _failed(error: Exception) -> Probed:
    text = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError):
        return Probed(found=None, problem=f"{error.name} is not installed")
    if isinstance(error, LrmError):
        return Probed(found=None, problem=text)
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    where = next((name for name in reversed(frames) if not name.startswith("<")), "")
    problem = f"cannot be imported: {type(error).__name__}: {text} ({where})"
    return Probed(found=None, problem=problem, where=where)


if __name__ == "__main__":
    status = main()
    # Some packages hang while the interpreter shuts down.
    os._exit(status)
