"""What Blender prints of its time is read as it prints it."""

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


def test_the_frames_of_colour_are_summed():
    found = split_seconds(GEOMETRY + COLOUR_MARK + "\n" + FIRST + FIRST, denoised=True)
    assert found == pytest.approx({"sync": 0.2, "sample": 1.6, "denoise": 0.6})


def test_minutes_and_hours():
    found = split_seconds(COLOUR_MARK + "\n" + LONG, denoised=True)
    assert found == pytest.approx({"sync": 0, "sample": 480, "denoise": 3120})


def test_without_a_denoiser_all_is_sampling():
    found = split_seconds(COLOUR_MARK + "\n" + FIRST, denoised=False)
    assert found == pytest.approx({"sync": 0.1, "sample": 1.1, "denoise": 0})


def test_a_log_of_another_kind_gives_nothing():
    assert split_seconds("Blender 5.0 says nothing", denoised=True) == {
        "sync": 0,
        "sample": 0,
        "denoise": 0,
    }
