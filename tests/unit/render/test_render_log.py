"""Times in Blender's log are read and summed by phase."""

import pytest

from render.job import COLOUR_MARK
from render.render_log import split_seconds


def line(time: str, what: str) -> str:
    return f"Fra:1 Mem:38.35M (Peak 38.35M) | Time:{time} | Mem:12.31M | Scene, ViewLayer | {what}"


def frame(*marks: tuple[str, str]) -> str:
    return "\n".join([line("00:00.00", "Updating Lights"), *(line(*mark) for mark in marks), ""])


GEOMETRY = frame(("00:09.00", "Sample 0/1"), ("00:19.00", "Sample 1/1"))
FIRST = frame(("00:00.10", "Sample 0/8"), ("00:00.20", "Sample 1/8"), ("00:01.20", "Sample 8/8"))
LONG = frame(("00:00.00", "Sample 0/8"), ("01:00.00", "Sample 1/8"), ("1:00:00.00", "Sample 8/8"))


def test_the_colour_frames_are_summed():
    seconds = split_seconds(GEOMETRY + COLOUR_MARK + "\n" + FIRST + FIRST, denoised=True)
    assert seconds == pytest.approx({"sync": 0.2, "sample": 1.6, "denoise": 0.6})


def test_minutes_and_hours_are_read():
    seconds = split_seconds(COLOUR_MARK + "\n" + LONG, denoised=True)
    assert seconds == pytest.approx({"sync": 0, "sample": 480, "denoise": 3120})


def test_without_a_denoiser_all_time_is_sampling():
    seconds = split_seconds(COLOUR_MARK + "\n" + FIRST, denoised=False)
    assert seconds == pytest.approx({"sync": 0.1, "sample": 1.1, "denoise": 0})


def test_a_log_without_times_gives_zeros():
    assert split_seconds("Blender 5.0 says nothing", denoised=True) == {
        "sync": 0,
        "sample": 0,
        "denoise": 0,
    }
