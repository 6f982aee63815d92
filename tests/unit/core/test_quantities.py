"""Numbers for people to read: few digits and a suitable unit."""

import pytest

from core.quantities import amount, percent, round_duration, short_duration, size, with_si_prefix


@pytest.mark.parametrize(
    ("number", "bare", "of_bytes"),
    [
        (0, "0", "0 B"),
        (999, "999", "999 B"),
        (1000, "1.0 k", "1.0 kB"),
        (999_949, "999.9 k", "999.9 kB"),
        (999_960, "1.0 M", "1.0 MB"),
        (5.2e12, "5.2 T", "5.2 TB"),
        (1.25e18, "1,250.0 P", "1,250.0 PB"),
    ],
)
def test_the_prefix_changes_when_rounding_reaches_1000(number, bare, of_bytes):
    assert (with_si_prefix(number), size(number)) == (bare, of_bytes)


def test_durations_percentages_and_amounts():
    assert [short_duration(s) for s in (0.035, 1.3, 65, 720, 12_600)] == [
        "35 ms", "1.3 s", "65 s", "12 min", "3.5 h",
    ]  # fmt: skip
    assert [round_duration(s) for s in (15, 60, 5400, 86_400)] == [
        "15 seconds", "1 minute", "90 minutes", "1 day",
    ]  # fmt: skip
    assert [percent(*pair) for pair in ((1, 8), (1, 10_000), (0, 5), (3, 0))] == [
        "12.5 %", "< 0.1 %", "0.0 %", "",
    ]  # fmt: skip
    assert [amount(n) for n in (0, 0.0021, 3.5, 12_345)] == ["0", "0.0021", "3.5", "12,345"]
