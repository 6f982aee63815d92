"""Checks of Python packages: each is imported in a new process, as by the commands that use it."""

import platform
import sys
import sysconfig
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipelines.doctor.finding import Finding, install_command, reinstall_command
from pipelines.doctor.probe import ProbeResult, probe

__all__ = ["BUILD_PACKAGES", "TRAIN_PACKAGES", "check_packages", "repair_command"]

_HAS_BASIS = sys.platform != "linux" or platform.machine() == "x86_64"
"""Whether opengl-basisu exists for this machine, as in pyproject.toml."""
BUILD_PACKAGES: Mapping[str, str] = {
    "ray": "lrm build, on all cores and on clusters",
    "psutil": "the memory limit of Blender children",
    "OpenEXR": "reading rendered frames",
    "scipy": "filters.multi-object",
    "jinja2": "lrm report",
    "trimesh": "make demo, lrm evaluate",
    **({"opengl_basisu": "textures in Basis Universal"} if _HAS_BASIS else {}),
}
"""For each module, what needs it. bpy is checked by starting a Blender child."""
TRAIN_PACKAGES: Mapping[str, str] = {
    "ray": "lrm train with more than one worker",
    "safetensors": "weight files",
    "scipy": "lrm evaluate, textures",
    "tensorboard": "TensorBoard logs of a run (not with --loggers [])",
    "trimesh": "mesh files, lrm evaluate",
    "xatlas": "lrm reconstruct --texture",
    "diffusers": "Zero123++",
    "transformers": "Zero123++",
    "tokenizers": "Zero123++",
}
"""For each module, what needs it. torch and deepspeed have their own checks."""
_PARALLEL_IMPORTS = 2
"""A large package takes hundreds of megabytes of memory when it is imported."""


def check_packages(needs: Mapping[str, str], extra: str) -> list[Finding]:
    """Return a finding for each module in `needs`, a package of the extra."""
    with ThreadPoolExecutor(_PARALLEL_IMPORTS) as pool:
        return list(pool.map(lambda name: _check(name, needs[name], extra), needs))


def _check(name: str, needed_for: str, extra: str) -> Finding:
    result = probe("package", name)
    return Finding(
        what=name,
        state="missing" if result.problem else "ok",
        found=result.problem or result.value["version"],
        needed_for=needed_for,
        remedy=repair_command(result, extra) if result.problem else "",
    )


def repair_command(result: ProbeResult, extra: str) -> str:
    """Return the command that repairs a package that cannot be imported.

    The package is missing, is installed but broken, or another file shadows it.
    """
    if not result.where:
        return install_command(extra)
    where = Path(result.where)
    for kind in ("purelib", "platlib"):
        folder = Path(sysconfig.get_path(kind))
        if where.is_relative_to(folder):
            return reinstall_command(where.relative_to(folder).parts[0].removesuffix(".py"))
    return f"unset PYTHONPATH  # {where} is imported instead of the installed package"
