"""The work of rendering pictures, as it grows with resolution, views, framing and samples.

The constants are core-seconds of the 32 views of `lrm32` at 512 pixels, from the measurements of
real models in docs/notes/scale.md.
"""

import math
from collections.abc import Mapping
from functools import cache

import numpy as np

from dataset.views import DEFAULT_RESOLUTION
from pipelines.building.build_config import BuildConfig
from render.render_config import RenderConfig
from render.rigs import get_rig

__all__ = ["picture_bytes", "picture_seconds", "views"]

_VIEWS = 32
_GEOMETRY, _DENOISE, _SAMPLE, _CHECK = 2.5, 9.7, 2.15, 0.25
"""Seconds that grow with the area that the object fills; of `_SAMPLE` for each sample."""
_FIXED_GEOMETRY, _FIXED_COLOUR, _FIXED_CHECK, _FIXED_PROBE = 0.1, 0.4, 0.1, 0.05
"""Seconds at any resolution; all but those of the probe grow with the number of views."""
_PROBE_VIEWS, _PROBE_SAMPLES = 2, 12
"""Views and samples of the probes; one of three pictures is denoised (render/blender/quality.py).
"""
_BYTES, _BYTES_EXPONENT = 3_500_000, 0.7
"""Bytes of all views, and their growth with the area: large pictures compress better."""
_SPHERE = 0.9
"""Area of an object in the unit sphere, relative to the same object in the cube."""
_REACHED = (31.0, 33.4, 34.9, 34.9, 36.6, 37.8, 38.9, 39.3, 39.7, 40.2, 41.1, 44.7)
"""PSNR in dB of twelve real models with eight samples, at 512 pixels (docs/notes/rendering.md)."""
_DB_PER_OCTAVE = 2.0
"""Loss of PSNR with half the resolution, below 512 pixels: textures are finer than the pixels."""
_REACHED_SAMPLES, _DB_PER_DOUBLING, _MAX_SHORTFALL = 8, 2.2, 4.0
"""The rule by which a render chooses the number of samples (render/blender/quality.py)."""


def views(config: BuildConfig) -> float:
    """Return the number of views of a rig, relative to `lrm32`."""
    return get_rig(config.rig).num_views / _VIEWS


def picture_seconds(config: BuildConfig) -> Mapping[str, float]:
    """Return the core-seconds of the timed parts of a render that depend on the settings."""
    render, num = config.render, views(config)
    area = num * _area(config)
    probes = 0.0
    if render.denoise and render.samples > render.min_samples:
        of_probe = _DENOISE + _SAMPLE * _PROBE_SAMPLES
        probes = _FIXED_PROBE + _area(config) * _PROBE_VIEWS / _VIEWS * of_probe
    per_area = _SAMPLE * _mean_samples(render) + (_DENOISE if render.denoise else 0.0)
    return {
        "geometry": num * _FIXED_GEOMETRY + area * _GEOMETRY,
        "probe": probes,
        "colour": num * _FIXED_COLOUR + area * per_area,
        "check": num * _FIXED_CHECK + area * _CHECK,
    }


def picture_bytes(config: BuildConfig) -> float:
    """Return the bytes of all views of an object."""
    return _BYTES * views(config) * _area(config) ** _BYTES_EXPONENT


def _area(config: BuildConfig) -> float:
    """Return the mean pixels that an object fills in a view, relative to `lrm32` at 512 pixels."""
    framing = _framing(config.rig) / _framing("lrm32")
    return framing * (config.render.resolution / DEFAULT_RESOLUTION) ** 2


@cache
def _framing(rig_name: str) -> float:
    """Return the mean of (focal length / distance)^2, and less for objects in the unit sphere."""
    rig = get_rig(rig_name)
    cameras = rig.cameras("objaverse:framing")
    ratios = [
        float(camera.intrinsics[0] / np.linalg.norm(camera.camera_to_world[:3, 3]))
        for camera in cameras
    ]
    return float(np.mean(np.square(ratios))) * (_SPHERE if rig.normalise == "sphere" else 1.0)


def _mean_samples(render: RenderConfig) -> float:
    """Return the mean number of samples per pixel that real models get."""
    if not render.denoise or render.samples <= render.min_samples:
        return render.samples
    octaves = max(0.0, math.log2(DEFAULT_RESOLUTION / render.resolution))
    quality = render.quality + _DB_PER_OCTAVE * octaves
    needed = (_samples(quality - reached, render.samples) for reached in _REACHED)
    chosen = [min(render.samples, max(render.min_samples, samples)) for samples in needed]
    return sum(chosen) / len(chosen)


def _samples(missing_db: float, max_samples: int) -> float:
    """Return the samples that an object needs which misses the quality by this many dB."""
    missing = missing_db / _DB_PER_DOUBLING
    shortfall = missing_db - _DB_PER_DOUBLING * math.log2(max_samples / _REACHED_SAMPLES)
    return _REACHED_SAMPLES * (1.0 if shortfall > _MAX_SHORTFALL else 2.0**missing)
