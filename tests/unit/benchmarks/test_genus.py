"""Parts and handles of solids of cubes."""

import numpy as np
import pytest

from benchmarks.pixel2mesh.genus import parts_and_handles


def solid(*boxes: tuple[slice, slice, slice]) -> np.ndarray:
    cubes = np.zeros((12, 12, 12), dtype=bool)
    for box in boxes:
        cubes[box] = True
    return cubes


ALL, LOW, HIGH = slice(2, 10), slice(2, 4), slice(8, 10)
RING = [(ALL, LOW, LOW), (ALL, HIGH, LOW), (LOW, ALL, LOW), (HIGH, ALL, LOW)]


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([(ALL, ALL, ALL)], (1, 0)),
        ([(ALL, ALL, LOW), (LOW, LOW, LOW)], (1, 0)),
        ([(LOW, LOW, LOW), (HIGH, HIGH, HIGH)], (2, 0)),
        (RING, (1, 1)),
        ([*RING, (slice(5, 7), ALL, LOW)], (1, 2)),
        ([*RING, (ALL, ALL, HIGH)], (2, 1)),
        ([(slice(0, 12), ALL, ALL)], (1, 0)),
    ],
    ids=["ball", "plate", "two balls", "ring", "figure eight", "ring and plate", "at the border"],
)
def test_parts_and_handles(boxes, expected):
    assert parts_and_handles(solid(*boxes)) == expected
