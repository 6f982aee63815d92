"""What can only be tried in a process of its own: imports that may crash, devices, weights.

`python -m pipelines.doctor.probe NAME [WORDS]` prints a `Probed` as JSON in its last line.
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
    """The answer of a probe."""

    found: Any
    problem: str
    """Empty if it went well."""
    where: str = ""
    """The file in which a package failed; empty if it is not there."""


def probe(name: str, *words: str, seconds: float = 240.0) -> Probed:
    """Run a probe in a new process, which imports what the user's own would."""
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(_PROJECT)]))
    try:
        done = subprocess.run(
            # -P: a file of that name in the current folder is not the package.
            [sys.executable, "-P", "-m", "pipelines.doctor.probe", name, *words],
            env=os.environ | {"PYTHONPATH": path},
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return Probed(found=None, problem=f"no answer in {seconds:g} s")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return Probed(found=None, problem=f"the process that tried it ended with {name}")
    try:
        return Probed(**json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError, TypeError):
        last = [line for line in done.stderr.splitlines() if line.strip()]
        said = last[-1].strip() if last else f"exit code {done.returncode}"
        return Probed(found=None, problem=said)


def _package(name: str) -> dict[str, str]:
    """Import it: its version and where it lies."""
    module = importlib.import_module(name)
    version = str(getattr(module, "__version__", ""))
    if not version:
        owners = importlib.metadata.packages_distributions().get(name, [])
        version = importlib.metadata.version(owners[0]) if owners else "of unknown version"
    return {"version": version, "where": module.__file__ or ""}


def _blender(device: str) -> dict[str, Any]:
    """Start a Blender child: what it says of itself."""
    from render.process import BlenderProcess, RenderFailure
    from render.render_config import BlenderLimits

    limits = BlenderLimits(threads=len(os.sched_getaffinity(0)))
    try:
        with BlenderProcess(limits, device=device) as blender:
            return asdict(blender.look())
    except RenderFailure as error:
        said = [line.strip() for line in (error.log_tail or "").splitlines() if line.strip()]
        last = f": {said[-1]}" if said and error.kind is FailureKind.NO_START else ""
        raise WorkFailed(f"{error}{last}") from None


def _cuda() -> dict[str, Any]:
    """What PyTorch sees of GPUs, and why it sees none."""
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
    """Import DeepSpeed as training does: its version and accelerator."""
    from train.settings.accelerator import choose_accelerator

    choose_accelerator()
    version = _package("deepspeed")["version"]
    chosen = importlib.import_module("deepspeed.accelerator").get_accelerator()
    return {"version": version, "accelerator": str(chosen.device_name())}


def _lpips(vgg: str, linear: str) -> list[str]:
    """Load the weights of LPIPS: the files that they are in."""
    from train.models.lpips import LpipsConfig, find_weights, load_lpips

    config = LpipsConfig(vgg=vgg or None, linear=linear or None)
    load_lpips(config)
    return [str(path) for path in find_weights(config)]


def _hub_cache() -> dict[str, Any]:
    """The folder, and the models in it."""
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
    """Run the probe that the command line names."""
    print(f"\n{json.dumps(asdict(answer(*sys.argv[1:])))}", flush=True)
    return 0


def answer(name: str, *words: str) -> Probed:
    """Run a probe in this process."""
    try:
        return Probed(found=_PROBES[name](*words), problem="")
    except Exception as error:  # noqa: BLE001 - whatever a package raises is the answer
        return _failed(error)


def _failed(error: Exception) -> Probed:
    text = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError):
        return Probed(found=None, problem=f"{error.name} is not installed")
    if isinstance(error, LrmError):
        return Probed(found=None, problem=text)
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    where = next((name for name in reversed(frames) if not name.startswith("<")), "")
    problem = f"does not import: {type(error).__name__}: {text} ({where})"
    return Probed(found=None, problem=problem, where=where)


if __name__ == "__main__":
    status = main()
    # Some packages hang in the interpreter's own clean-up.
    os._exit(status)
