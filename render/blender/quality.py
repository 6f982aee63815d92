"""The number of samples that an object needs to reach a given quality.

A plain surface needs 4 samples for the quality that a fine pattern reaches with 40. So two views
are probed with three images each: d is rendered like all views, u and v with few samples and no
denoiser, each with a seed of its own. u and v are noisy but unbiased estimates of the true image t,
with noise that is independent of d and of each other. So the expectation of (d - u)(d - v) is
(d - t)², the squared error of d including the blur of the denoiser.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from render.job import Window

__all__ = ["PROBE", "ProbeImages", "choose_samples", "probe_views"]

PROBE = ((8, True), (2, False), (2, False))
"""Samples of d, u and v, and whether they are denoised."""
_NUM_VIEWS = 2
_DB_PER_DOUBLING = 2.2
"""Gain in dB from twice the samples: 1.6 to 3.6 on real models (3 in theory, without a denoiser).
"""
_MAX_SHORTFALL = 4.0
"""In dB. If the maximum of samples misses the target by more, it is not worth its time."""
_MIN_PIXELS = 500
"""Pixels of the object in all probes together that an estimate needs."""
_OPAQUE = 0.999
"""Alpha from which a pixel counts as filled by the object."""
_MAX_LINEAR = 2.0
"""Linear value above which pixels are ignored: noise at the edge of a lamp would dominate."""
_MIN_LINEAR = 0.0031308
"""Linear value at which the linear part of the sRGB curve ends."""

ProbeImages = tuple[np.ndarray, np.ndarray, np.ndarray]
"""The images d, u and v of one view: linear, premultiplied (h, w, 4)."""


def probe_views(windows: Sequence[Window | None]) -> list[int]:
    """Return the views to probe, spread evenly over those that show the object."""
    visible = [view for view, window in enumerate(windows) if window is not None]
    count = min(_NUM_VIEWS, len(visible))
    return [visible[(2 * i + 1) * len(visible) // (2 * count)] for i in range(count)]


def choose_samples(
    probes: Iterable[ProbeImages], quality: float, min_samples: int, max_samples: int
) -> int:
    """Return the samples with which an object's views reach `quality` (PSNR in dB).

    If even `max_samples` would miss it by far, as with a pattern finer than the pixels, the result
    is the number of the probe: 50 % more samples would only raise 32 dB to 33. An object that
    fills too few pixels for an estimate gets `max_samples`.
    """
    errors = np.concatenate([np.zeros(0), *(_squared_errors(*images) for images in probes)])
    if len(errors) < 3 * _MIN_PIXELS or not np.isfinite(errors).all():
        return max_samples
    # The mean may be negative by chance if the error is almost 0.
    reached = -10 * math.log10(max(float(errors.mean()), 1e-8))
    doublings = (quality - reached) / _DB_PER_DOUBLING
    shortfall = _DB_PER_DOUBLING * (doublings - math.log2(max_samples / PROBE[0][0]))
    needed = PROBE[0][0] * (1 if shortfall > _MAX_SHORTFALL else 2**doublings)
    return min(max_samples, max(min_samples, math.ceil(needed)))


def _squared_errors(d: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return estimates of the squared error of d, in sRGB, at the pixels that the object fills."""
    used = np.minimum(np.minimum(d, u), v)[..., 3] > _OPAQUE
    used &= np.maximum(u, v).max(axis=-1) < _MAX_LINEAR
    d, u, v = (image[used][:, :3] for image in (d, u, v))
    # The sRGB curve to the first order, around d: applied to u and v it would bias their noise.
    slope = 1.055 / 2.4 * np.maximum(d, _MIN_LINEAR) ** (1 / 2.4 - 1)
    errors = (d - u) * (d - v) * slope**2
    return np.where(d < 1, errors, 0).ravel()  # values above 1 are clipped to white
