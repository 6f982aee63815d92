"""Timings of a render, parsed from Blender's log; Blender has no interface for them."""

import re

from render.job import COLOUR_MARK

__all__ = ["split_seconds"]

_LINE = re.compile(
    r"Time:(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+\.\d+) .*"
    r"Sample (?P<done>\d+)/(?P<all>\d+)$"
)


def split_seconds(log: str, denoised: bool) -> dict[str, float]:
    """Return the seconds of `sync`, `sample` and `denoise`, summed over the colour frames of a log.

    Cycles prints the time since the start of the frame three times: before the first sample, after
    it, and after the last sample and the denoiser. All samples are assumed to take as long as the
    first one, so the border between `sample` and `denoise` is an estimate.
    """
    sync = sample = denoise = began = first = 0.0
    for line in log.rpartition(COLOUR_MARK)[2].splitlines():
        match = _LINE.search(line)
        if match is None:
            continue
        time, done, samples = _seconds(match), int(match["done"]), int(match["all"])
        if done == 0:
            began = first = time
            sync += time
        elif done < samples:
            first = time
        else:
            spent = time - began
            # A frame with one sample has no line after its first sample.
            sampling = min((first - began) * samples, spent) if denoised and samples > 1 else spent
            sample, denoise = sample + sampling, denoise + spent - sampling
    return {"sync": round(sync, 2), "sample": round(sample, 2), "denoise": round(denoise, 2)}


def _seconds(match: "re.Match[str]") -> float:
    return 3600 * int(match["hours"] or 0) + 60 * int(match["minutes"]) + float(match["seconds"])
