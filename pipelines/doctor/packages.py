"""Packages: each is imported in a process of its own, as the commands that need it would."""

import sysconfig
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipelines.doctor.finding import Finding, install_line, reinstall_line
from pipelines.doctor.probe import Probed, probe

__all__ = ["BUILD_PACKAGES", "TRAIN_PACKAGES", "check_packages", "mending_line"]

BUILD_PACKAGES: Mapping[str, str] = {
    "ray": "lrm build, on all cores and on clusters",
    "psutil": "watching Blender's memory",
    "OpenEXR": "reading renders",
    "scipy": "filters.several",
    "jinja2": "lrm report",
    "trimesh": "make demo, lrm evaluate",
}
"""By module: what needs it. bpy is tried in a Blender child."""
TRAIN_PACKAGES: Mapping[str, str] = {
    "ray": "lrm train with more than one worker",
    "safetensors": "files of weights",
    "scipy": "lrm evaluate, textures",
    "tensorboard": "curves of a run (--tensorboard false does without)",
    "trimesh": "mesh files, lrm evaluate",
    "xatlas": "lrm reconstruct --texture",
    "diffusers": "Zero123++",
    "transformers": "Zero123++",
    "tokenizers": "Zero123++",
}
"""torch and deepspeed have checks of their own."""
_AT_ONCE = 2
"""Imports of large packages are hundreds of megabytes each."""


def check_packages(needs: Mapping[str, str], extra: str) -> list[Finding]:
    """A finding for each package of an extra."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda name: _check(name, needs[name], extra), needs))


def _check(name: str, needed_for: str, extra: str) -> Finding:
    tried = probe("package", name)
    return Finding(
        what=name,
        state="missing" if tried.problem else "ok",
        found=tried.problem or tried.found["version"],
        needed_for=needed_for,
        remedy=mending_line(tried, extra) if tried.problem else "",
    )


def mending_line(tried: Probed, extra: str) -> str:
    """What mends a package that does not import: installing it, or whatever lies before it."""
    if not tried.where:
        return install_line(extra)
    where = Path(tried.where)
    for kind in ("purelib", "platlib"):
        folder = Path(sysconfig.get_path(kind))
        if where.is_relative_to(folder):
            return reinstall_line(where.relative_to(folder).parts[0].removesuffix(".py"))
    return f"unset PYTHONPATH  # {where} stands before what is installed"
