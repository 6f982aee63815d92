"""What can be set about rendering: what changes pixels, and what does not."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from core.config import Config
from dataset.views import DEFAULT_RESOLUTION

__all__ = ["RENDERER_VERSION", "BlenderLimits", "RenderConfig"]

RENDERER_VERSION = "blender-4.5/3"
"""Part of every render's identity: change it whenever the same settings give other pixels."""


class RenderConfig(Config):
    """What changes pixels."""

    resolution: PositiveInt = DEFAULT_RESOLUTION
    """Side of the images in pixels."""
    samples: PositiveInt = 12
    """Most Cycles samples per pixel, before denoising."""
    min_samples: PositiveInt = 4
    """Fewest. As many as `samples`: all objects take so many."""
    quality: PositiveFloat = 41.5
    """PSNR in dB to aim at: an object that reaches it with fewer samples takes no more."""
    denoise: bool = True
    """Open Image Denoise, guided by albedo and normals."""
    device: Literal["cpu", "gpu"] = "cpu"
    """Where Cycles renders; asking for a GPU that it cannot use is an error."""
    texture_size: PositiveInt = 2048
    """Larger textures are scaled down to this side."""
    light_strength: NonNegativeFloat = 0.78
    """Radiance of the light around the object, averaged over all directions."""
    light_gradient: NonNegativeFloat = 0.28
    """How much more comes from above and in front, and less from the opposite side."""
    seed: NonNegativeInt = 0
    """Of Cycles' sampling pattern."""


class BlenderLimits(Config):
    """What a Blender child may use; nothing here changes pixels."""

    threads: PositiveInt = 1
    """Cores per child."""
    import_seconds: PositiveFloat = 120.0
    """Time limit for loading one object."""
    measure_seconds: PositiveFloat = 120.0
    """Time limit for its silhouettes and surface points, and for its companion geometry."""
    render_seconds: PositiveFloat = 1800.0
    """Time limit for all its views."""
    warm_seconds: PositiveFloat = 1800.0
    """Time limit for compiling a GPU's kernels, once per child and before any object."""
    memory_bytes: Annotated[int, Field(ge=2**29)] = 8 * 2**30
    """Most memory (resident) of a child."""
    objects_per_child: PositiveInt = 50
    """A child is replaced after so many objects: Blender leaks."""
    recycle_bytes: PositiveInt = 3 * 2**30
    """A child that holds more memory than this when an object comes is replaced."""
