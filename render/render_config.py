"""The configuration of rendering: settings that change pixels, and limits that do not."""

from typing import Annotated, Literal

from pydantic import Field

from core.config import (
    Config,
    NonNegativeFloat,
    NonNegativeInt,
    NumBytes,
    PositiveInt,
    Seconds,
    Side,
)
from dataset.views import DEFAULT_RESOLUTION

__all__ = ["RENDERER_VERSION", "BlenderLimits", "RenderConfig"]

RENDERER_VERSION = "blender-4.5/4"
"""Part of the identity of every render. Change it when the same settings give other pixels."""


class RenderConfig(Config):
    """The settings that change pixels. The bounds of samples are Blender's own."""

    resolution: Side = DEFAULT_RESOLUTION
    """Width and height of the rendered images in pixels."""
    samples: Annotated[int, Field(gt=0, le=2**24)] = 12
    """Maximum Cycles samples per pixel, before denoising."""
    min_samples: Annotated[int, Field(gt=0, le=4096)] = 4
    """Minimum Cycles samples per pixel. Set equal to `samples` to disable adaptive sampling."""
    quality: Annotated[float, Field(gt=0, le=200)] = 41.5
    """Target PSNR in dB: each object is rendered with the fewest samples that reach it."""
    denoise: bool = True
    """Denoise the colours with Open Image Denoise, guided by albedo and normals."""
    device: Literal["cpu", "gpu"] = "cpu"
    """Device on which Cycles renders; with `gpu`, a machine without a usable GPU fails."""
    texture_size: Side = 2048
    """Maximum side of a texture in pixels; larger textures are scaled down."""
    light_strength: NonNegativeFloat = 0.78
    """Radiance of the surrounding light, averaged over all directions; 1.0 shows a white matt
    surface as white."""
    light_gradient: NonNegativeFloat = 0.28
    """Radiance that is added from above and in front, and subtracted from the opposite direction;
    0 is uniform light."""
    cull_shells: bool = True
    """Draw a single-sided shell that faces inward and hides other geometry (the outline of a
    cartoon figure, a sky, a room) from its front only, as glTF defines it, and leave it out of the
    occupancy and the companion geometry. All other surfaces are drawn from both sides."""
    seed: NonNegativeInt = 0
    """Seed of Cycles' sampling noise. Another seed gives other noise and renders all objects again.
    """


class BlenderLimits(Config):
    """Limits of a Blender child process; none of them changes pixels."""

    threads: Annotated[int, Field(gt=0, le=65_536)] = 1
    """CPU threads per Blender child, which are also the cores that Ray reserves for it."""
    import_seconds: Seconds = 120.0
    """Time limit for inspecting one object, and again for loading it, in seconds."""
    measure_seconds: Seconds = 120.0
    """Time limit in seconds for the silhouettes and surface points of one object, and again for its
    companion geometry."""
    render_seconds: Seconds = 1800.0
    """Time limit for rendering all views of one object, in seconds."""
    kernel_compile_seconds: Seconds = 1800.0
    """Time limit in seconds for compiling GPU kernels, once per child, before its first object."""
    memory_bytes: Annotated[int, Field(ge=2**29, le=2**50)] = 8 * 2**30
    """Maximum resident memory in bytes of a Blender child, and of the process that inspects files;
    one that exceeds it is killed."""
    objects_per_child: PositiveInt = 50
    """Number of objects after which a child is replaced, because Blender leaks memory."""
    recycle_bytes: NumBytes = 3 * 2**30
    """Resident memory in bytes above which a child is replaced before the next object."""
