"""How many samples an object is worth: as few as its pattern and its materials allow.

A plain surface is as good with 4 samples as a damask with 40. So two views are probed: rendered as
all views are (d), and twice with few samples and no denoiser (u, v), each with a seed of its own. u
and v are noisy, but true to the scene t on average, and nothing that d has in common with them is
noise. So (d - u)(d - v) averages to (d - t)²: the error of d, blur of the denoiser included.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from render.job import Window

__all__ = ["PROBE", "Pictures", "choose_samples", "probe_views"]

PROBE = ((8, True), (2, False), (2, False))
"""Samples of d, u and v, and whether they are denoised."""
_VIEWS = 2
_PER_DOUBLING = 2.2
"""dB that twice the samples give: 1.6 to 3.6 on real models; it would be 3 without a denoiser."""
_HOPELESS = 4.0
"""dB by which the most samples may fall short and still be worth their time."""
_FEWEST_PIXELS = 500
"""Of the object in all probes together, to judge it by them."""
_SOLID = 0.999
_BRIGHTEST = 2.0
"""Linear. At the edge of a lamp u and v jump by so much that they drown all else."""
_DARKEST = 0.0031308
"""Of linear colours: where the straight part of the sRGB curve ends."""

Pictures = tuple[np.ndarray, np.ndarray, np.ndarray]
"""d, u and v of one view: linear, premultiplied (h, w, 4)."""


def probe_views(windows: Sequence[Window | None]) -> list[int]:
    """The views to probe: spread evenly over those that show the object."""
    seen = [view for view, window in enumerate(windows) if window is not None]
    count = min(_VIEWS, len(seen))
    return [seen[(2 * i + 1) * len(seen) // (2 * count)] for i in range(count)]


def choose_samples(probes: Iterable[Pictures], quality: float, fewest: int, most: int) -> int:
    """Samples with which an object's views reach `quality` (PSNR in dB), within the bounds.

    What falls far short of it even with the most, such as a pattern finer than the pixels, gets as
    many as the probe: half as many again would make 33 dB of 32. An object that fills too few
    pixels to be judged takes the most.
    """
    errors = np.concatenate([np.zeros(0), *(_squared_errors(*pictures) for pictures in probes)])
    if len(errors) < 3 * _FEWEST_PIXELS or not np.isfinite(errors).all():
        return most
    # The mean may be below zero by chance where there is next to no error.
    reached = -10 * math.log10(max(float(errors.mean()), 1e-8))
    doublings = (quality - reached) / _PER_DOUBLING
    in_vain = _PER_DOUBLING * (doublings - math.log2(most / PROBE[0][0])) > _HOPELESS
    needed = PROBE[0][0] * (1 if in_vain else 2**doublings)
    return min(most, max(fewest, math.ceil(needed)))


def _squared_errors(d: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Estimates of the squared error of d, in sRGB, at the pixels that the object fills."""
    solid = np.minimum(np.minimum(d, u), v)[..., 3] > _SOLID
    solid &= np.maximum(u, v).max(axis=-1) < _BRIGHTEST
    d, u, v = (picture[solid][:, :3] for picture in (d, u, v))
    # To the first order, so that u and v stay true on average: a curve would bend their noise.
    steepness = 1.055 / 2.4 * np.maximum(d, _DARKEST) ** (1 / 2.4 - 1)
    shown = (d - u) * (d - v) * steepness**2
    return np.where(d < 1, shown, 0).ravel()  # white stays white
