"""A time limit leaves the process as it was, however the block ends."""

import signal
from typing import Any

import pytest

from pipelines.building.stages.time_limit import TimeLimitReached, time_limit


def test_an_alarm_at_the_end_of_the_block_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    handler, set_timer = signal.getsignal(signal.SIGALRM), signal.setitimer
    seconds_before, _ = signal.getitimer(signal.ITIMER_REAL)
    alarms = [signal.SIGALRM]

    def set_timer_late(which: int, seconds: float, interval: float = 0.0) -> Any:
        if not seconds and alarms:
            signal.raise_signal(alarms.pop())
        return set_timer(which, seconds, interval)

    monkeypatch.setattr(signal, "setitimer", set_timer_late)
    with pytest.raises(TimeLimitReached), time_limit(3600):
        pass
    assert signal.getsignal(signal.SIGALRM) is handler
    assert signal.getitimer(signal.ITIMER_REAL) == (pytest.approx(seconds_before, abs=60), 0)


def test_the_timer_of_others_goes_on() -> None:
    handler = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1000)
        with time_limit(3600):
            assert signal.getitimer(signal.ITIMER_REAL)[0] > 3000
        assert 900 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
