"""Checks that start a Blender child: its version, its network isolation, its GPUs."""

from pathlib import Path
from typing import Any

from core.quantities import short
from pipelines.doctor.finding import Finding, State, install_command, reinstall_command
from pipelines.doctor.probe import Probed, probe
from render.render_config import RENDERER_VERSION, BlenderLimits
from render.system_libraries import apt_command, missing_packages

__all__ = ["check_child", "check_gpu", "check_libraries", "check_network", "start_child"]

_START_SECONDS = 300.0
"""Time limit of the probe; longer than the time that render.process allows for the start."""
_SYSCTL = Path("/proc/sys")
_NAMESPACE_SETTINGS = (
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("user/max_user_namespaces", "0", "15000"),
    ("user/max_net_namespaces", "0", "15000"),
)
"""Kernel settings that can forbid namespaces: name, forbidding value, allowing value."""


def start_child(*, gpu: bool) -> Probed:
    """Start a Blender child as a build does; return its `ChildReport` as plain data.

    With `gpu`, it also renders a small picture on the GPU, which compiles the GPU kernels first.
    """
    seconds = _START_SECONDS + (BlenderLimits().kernel_compile_seconds if gpu else 0)
    return probe("blender", "gpu" if gpu else "cpu", seconds=seconds)


def check_libraries() -> Finding:
    """Check the system libraries that bpy loads."""
    missing = missing_packages()
    return Finding(
        what="system libraries",
        state="missing" if missing else "ok",
        found=f"missing or broken: {', '.join(missing)}"
        if missing
        else "all libraries that bpy loads are installed",
        needed_for="bpy",
        remedy=apt_command(missing) if missing else "",
    )


def check_child(started: Probed) -> Finding:
    """Check that the child started, with the Blender version that the renderer requires."""
    required = RENDERER_VERSION.partition("-")[2].partition("/")[0]
    report: dict[str, Any] = started.found
    state: State
    if started.problem:
        state, found, remedy = "missing", started.problem, _child_remedy(started.problem)
    else:
        state, remedy = "ok", ""
        found = f"Blender {report['blender']}, started in {short(report['seconds'])}"
        if not report["blender"].startswith(f"{required}."):
            state, remedy = "missing", install_command("build")
            found = f"Blender {report['blender']}, but the renderer requires {required}"
    needed_for = "measuring and rendering"
    return Finding(
        what="Blender child", state=state, found=found, needed_for=needed_for, remedy=remedy
    )


def _child_remedy(problem: str) -> str:
    missing = missing_packages()
    if missing:
        return apt_command(missing)
    if "not installed" in problem or "No module named" in problem:
        return install_command("build")
    if "temporary directory" in problem or "No space left" in problem:
        return "export TMPDIR=FOLDER  # a writable folder with free space"
    return reinstall_command("bpy")


def check_network(started: Probed) -> list[Finding]:
    """Check that the child has no network; return no finding if it did not start."""
    if started.problem:
        return []
    problem: str = started.found["not_confined"]
    return [
        Finding(
            what="network namespace",
            state="note" if problem else "ok",
            found=f"Blender children have network access: {problem}"
            if problem
            else "Blender children have no network access",
            needed_for="protection from malicious GLB files",
            remedy=_namespace_remedy() if problem else "",
        )
    ]


def _namespace_remedy() -> str:
    for name, forbidding, allowing in _NAMESPACE_SETTINGS:
        try:
            value = (_SYSCTL / name).read_text().strip()
        except OSError:
            continue
        if value == forbidding:
            return f"sysctl -w {name.replace('/', '.')}={allowing}"
    return "docker run --security-opt seccomp=unconfined ...  # or an isolated Docker network"


def check_gpu(started: Probed, *, wanted: bool) -> Finding:
    """Check the GPUs that Cycles lists.

    Without a GPU the state is `note`. With `wanted` it is `missing`, and a GPU that is listed must
    also render a picture.
    """
    report: dict[str, Any] = started.found
    needed_for = "--render.device gpu (default: cpu)"
    state: State = "ok"
    if started.problem:
        state, found, remedy = "missing", started.problem, _child_remedy(started.problem)
    elif not report["gpus"]:
        state, remedy = "missing" if wanted else "note", _gpu_remedy()
        found = "Cycles finds no GPU"
    else:
        backend, remedy = report["gpus"][0][0], ""
        names = ", ".join(name for kind, name in report["gpus"] if kind == backend)
        others = sorted({kind for kind, _ in report["gpus"]} - {backend})
        found = f"{backend}: {names}" + (f" (also as {', '.join(others)})" if others else "")
        if wanted:
            rendered = start_child(gpu=True)
            if rendered.problem:
                state, found, remedy = "missing", f"{found}: {rendered.problem}", _gpu_remedy()
            else:
                seconds = short(rendered.found["seconds"])
                found += f"; first picture with kernel compilation: {seconds}"
    return Finding(what="GPU", state=state, found=found, needed_for=needed_for, remedy=remedy)


def _gpu_remedy() -> str:
    if any(Path(name).exists() for name in ("/dev/nvidiactl", "/proc/driver/nvidia/version")):
        return "docker run -e NVIDIA_DRIVER_CAPABILITIES=all ...  # parts of the driver are missing"
    return "nvidia-smi  # must list a GPU: install its driver, or use --render.device cpu"
