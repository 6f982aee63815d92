"""A Blender child that really starts: its version, what it could give up, the GPUs it sees."""

from pathlib import Path
from typing import Any

from core.quantities import short
from pipelines.doctor.finding import Finding, State, install_line, reinstall_line
from pipelines.doctor.probe import Probed, probe
from render.render_config import RENDERER_VERSION, BlenderLimits
from render.system_libraries import apt_command, missing_packages

__all__ = ["check_child", "check_gpu", "check_libraries", "check_network", "start_child"]

_START_SECONDS = 300.0
"""More than render.process gives a child to start."""
_SYSCTL = Path("/proc/sys")
_SWITCHES = (
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("user/max_user_namespaces", "0", "15000"),
    ("user/max_net_namespaces", "0", "15000"),
)
"""Settings of the kernel that forbid namespaces: name, the value that does, one that does not."""


def start_child(*, gpu: bool) -> Probed:
    """Start one as a build does: its `ChildReport` as plain data, or why there is none.

    With `gpu` it also renders something small on the GPU, which compiles its kernels first.
    """
    seconds = _START_SECONDS + (BlenderLimits().kernel_compile_seconds if gpu else 0)
    return probe("blender", "gpu" if gpu else "cpu", seconds=seconds)


def check_libraries() -> Finding:
    """The libraries of the system that bpy loads."""
    missing = missing_packages()
    return Finding(
        what="system libraries",
        state="missing" if missing else "ok",
        found=f"not here or broken: {', '.join(missing)}" if missing else "all that bpy loads",
        needed_for="bpy",
        remedy=apt_command(missing) if missing else "",
    )


def check_child(started: Probed) -> Finding:
    """Whether it started, with the Blender that the renderer is written for."""
    wanted = RENDERER_VERSION.partition("-")[2].partition("/")[0]
    report: dict[str, Any] = started.found
    state: State
    if started.problem:
        state, found, remedy = "missing", started.problem, _child_remedy(started.problem)
    else:
        state, remedy = "ok", ""
        found = f"Blender {report['blender']}, started in {short(report['seconds'])}"
        if not report["blender"].startswith(f"{wanted}."):
            state, remedy = "missing", install_line("build")
            found = f"Blender {report['blender']}; the renderer is written for {wanted}"
    needed_for = "measuring and rendering"
    return Finding(
        what="Blender child", state=state, found=found, needed_for=needed_for, remedy=remedy
    )


def _child_remedy(problem: str) -> str:
    missing = missing_packages()
    if missing:
        return apt_command(missing)
    if "not installed" in problem or "No module named" in problem:
        return install_line("build")
    if "temporary directory" in problem or "No space left" in problem:
        return "export TMPDIR=FOLDER  # one with space that can be written"
    return reinstall_line("bpy")


def check_network(started: Probed) -> list[Finding]:
    """Whether the child could give up the network; nothing is said of one that did not start."""
    if started.problem:
        return []
    problem: str = started.found["not_confined"]
    return [
        Finding(
            what="network namespace",
            state="note" if problem else "ok",
            found=f"Blender children keep the network: {problem}"
            if problem
            else "Blender children have no network",
            needed_for="protection from strangers' files",
            remedy=_namespace_remedy() if problem else "",
        )
    ]


def _namespace_remedy() -> str:
    for name, forbids, allows in _SWITCHES:
        try:
            found = (_SYSCTL / name).read_text().strip()
        except OSError:
            continue
        if found == forbids:
            return f"sysctl -w {name.replace('/', '.')}={allows}"
    return "docker run --security-opt seccomp=unconfined ...  # or a network of its own"


def check_gpu(started: Probed, *, wanted: bool) -> Finding:
    """The GPUs that Cycles lists; none is a note. If one is `wanted`, it is tried, too."""
    report: dict[str, Any] = started.found
    needed_for = "--render.device gpu (cpu is the default)"
    state: State = "ok"
    if started.problem:
        state, found, remedy = "missing", started.problem, _child_remedy(started.problem)
    elif not report["gpus"]:
        state, found, remedy = "missing" if wanted else "note", "Cycles lists none", _gpu_remedy()
    else:
        backend, remedy = report["gpus"][0][0], ""
        names = ", ".join(name for kind, name in report["gpus"] if kind == backend)
        others = sorted({kind for kind, _ in report["gpus"]} - {backend})
        found = f"{backend}: {names}" + (f" (also as {', '.join(others)})" if others else "")
        if wanted:
            tried = start_child(gpu=True)
            if tried.problem:
                state, found, remedy = "missing", f"{found}: {tried.problem}", _gpu_remedy()
            else:
                found += f"; a first picture, kernels included: {short(tried.found['seconds'])}"
    return Finding(what="GPU", state=state, found=found, needed_for=needed_for, remedy=remedy)


def _gpu_remedy() -> str:
    if any(Path(name).exists() for name in ("/dev/nvidiactl", "/proc/driver/nvidia/version")):
        return "docker run -e NVIDIA_DRIVER_CAPABILITIES=all ...  # the driver is here, in part"
    return "nvidia-smi  # must list a GPU: install one with its driver, or keep --render.device cpu"
