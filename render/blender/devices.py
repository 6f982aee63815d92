"""What Cycles can render on."""

from collections.abc import Iterator
from typing import Any

import bpy

from core.failures import FailureKind
from render.blender.failure import SceneFailure

__all__ = ["list_gpus", "use_device"]

_BACKENDS = ("OPTIX", "CUDA", "HIP", "ONEAPI", "METAL")
"""The fastest first."""


def use_device(scene: Any, device: str, threads: int) -> None:
    """Render with Cycles on the CPU or on all GPUs of the first backend that has any.

    Raises SceneFailure (`no_device`).
    """
    scene.render.engine = "CYCLES"
    scene.render.threads_mode = "FIXED"
    scene.render.threads = threads
    if device == "cpu":
        scene.cycles.device = "CPU"
        return
    preferences = _preferences()
    for _, found in _gpus(preferences):
        for item in preferences.devices:
            item.use = item in found
        scene.cycles.device = "GPU"
        return
    message = "a GPU was asked for, but Cycles finds none on this machine"
    raise SceneFailure(FailureKind.NO_DEVICE, message)


def list_gpus() -> dict[str, object]:
    """`gpus`: a list of [backend, name]; those of the first backend are what `gpu` renders on."""
    found = _gpus(_preferences())
    return {"gpus": [[backend, item.name] for backend, items in found for item in items]}


def _preferences() -> Any:
    return bpy.context.preferences.addons["cycles"].preferences


def _gpus(preferences: Any) -> Iterator[tuple[str, list[Any]]]:
    """Each backend that has devices here, and these; it is Cycles' own choice until the next."""
    for backend in _BACKENDS:
        try:
            preferences.compute_device_type = backend
        except TypeError:
            continue  # this build has no such backend
        preferences.get_devices()
        found = [item for item in preferences.devices if item.type == backend]
        if found:
            yield backend, found
