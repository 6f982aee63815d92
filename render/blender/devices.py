"""The devices on which Cycles renders."""

from collections.abc import Iterator
from typing import Any

import bpy

from core.failures import FailureKind
from render.blender.failure import SceneFailure

__all__ = ["list_gpus", "use_device"]

_BACKENDS = ("OPTIX", "CUDA", "HIP", "ONEAPI", "METAL")
"""Backends of Cycles, the fastest first."""


def use_device(scene: Any, device: str, threads: int) -> None:
    """Set Cycles to the CPU, or to all GPUs of the first backend that has any.

    Raises SceneFailure (`no_device`) if there is no usable GPU.
    """
    scene.render.engine = "CYCLES"
    scene.render.threads_mode = "FIXED"
    scene.render.threads = threads
    if device == "cpu":
        scene.cycles.device = "CPU"
        return
    preferences = _preferences()
    for _, gpus in _gpus(preferences):
        for item in preferences.devices:
            item.use = item in gpus
        scene.cycles.device = "GPU"
        return
    message = "render.device is gpu, but Cycles finds no GPU on this machine"
    raise SceneFailure(FailureKind.NO_DEVICE, message)


def list_gpus() -> dict[str, object]:
    """Return {"gpus": [[backend, name], ...]}; `device="gpu"` uses those of the first backend."""
    backends = _gpus(_preferences())
    return {"gpus": [[backend, item.name] for backend, items in backends for item in items]}


def _preferences() -> Any:
    return bpy.context.preferences.addons["cycles"].preferences


def _gpus(preferences: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yield each backend that has GPUs here, and its GPUs.

    The yielded backend is the one selected in Cycles, until the next is requested.
    """
    for backend in _BACKENDS:
        try:
            preferences.compute_device_type = backend
        except TypeError:
            continue  # this build of Blender lacks the backend
        preferences.get_devices()
        gpus = [item for item in preferences.devices if item.type == backend]
        if gpus:
            yield backend, gpus
