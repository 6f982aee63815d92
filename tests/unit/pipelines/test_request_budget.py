"""The rate limiter: no window exceeds the budget, and a pause delays all clients."""

import bisect
import math
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.transfers.budget import LimiterClient, LocalBudget, RateLimiter
from pipelines.transfers.fetch_config import FetchConfig
from pipelines.transfers.outcome import FetchFailed


class Clock:
    """A clock that only the test advances, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(
    requests=st.integers(2, 100),
    seconds=st.floats(0.5, 300),
    gaps=st.lists(st.floats(0, 20), min_size=1, max_size=20),
    lease=st.sampled_from([0.0, 1.0]),
)
def test_no_window_holds_more_than_the_budget(requests, seconds, gaps, lease):
    clock = Clock()
    limiter = RateLimiter(requests, seconds, lease, clock)
    sent: list[float] = []
    for gap in gaps:
        clock.now += gap
        for _ in range(requests // 4 + 1):
            reservation, wait = limiter.reserve(math.inf)
            sent += [clock.now + wait] * reservation.count
    sent.sort()
    for number, first in enumerate(sent):
        assert bisect.bisect_left(sent, first + seconds - 1e-6) - number <= requests


def test_slots_keep_the_rate_and_the_order():
    clock = Clock()
    limiter = RateLimiter(100, 10, clock=clock)
    waits = [limiter.reserve(math.inf)[1] for _ in range(100)]
    assert waits[:5] == pytest.approx([0] * 5)
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(10, rel=0.02)


def test_a_pause_delays_all_waiting_clients():
    clock = Clock()
    limiter = RateLimiter(1, 1, clock=clock)
    first, wait = limiter.reserve(math.inf)
    second, later = limiter.reserve(math.inf)
    assert (wait, later) == (0, 1)
    limiter.pause(10)
    assert limiter.wait(second) == pytest.approx(11)
    clock.now += 4
    limiter.pause(3)
    assert limiter.wait(second) == pytest.approx(7)
    limiter.pause(8)
    assert limiter.wait(second) == pytest.approx(9)
    clock.now += 8
    assert limiter.wait(second) == pytest.approx(1)
    clock.now += 1
    assert limiter.wait(second) == 0
    assert limiter.wait(first) == 0


def test_a_limit_announced_by_the_server_can_only_lower_the_budget():
    clock = Clock()
    limiter = RateLimiter(100, 10, clock=clock)
    limiter.limit(1000, 10)
    assert [limiter.reserve(math.inf)[1] for _ in range(100)][-1] == pytest.approx(10, rel=0.02)
    clock.now += 100
    limiter.limit(10, 10)
    assert [limiter.reserve(math.inf)[1] for _ in range(10)][-1] == pytest.approx(10, rel=0.02)


def test_a_reservation_of_another_limiter_has_no_slot():
    reservation, _ = RateLimiter(1, 1).reserve(math.inf)
    assert RateLimiter(1, 1).wait(reservation) is None


def test_threads_share_a_budget():
    budget = LocalBudget(100, 1.0)
    times: list[float] = []

    def work() -> None:
        for _ in range(25):
            budget.acquire(30)
            times.append(time.monotonic())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == 100
    assert 0.95 < max(times) - min(times) < 5


def test_a_wait_is_limited():
    budget = LocalBudget(1, 100.0)
    budget.acquire(1)
    started = time.monotonic()
    with pytest.raises(FetchFailed, match="allows no request for") as raised:
        budget.acquire(1)
    assert raised.value.kind == "download"
    assert time.monotonic() - started < 1


def test_a_client_whose_wait_is_too_short_reserves_nothing():
    clock = Clock()
    limiter = RateLimiter(100, 100, clock=clock)
    for _ in range(20):
        limiter.reserve(math.inf)
    before = limiter.reserve(0)
    assert before[0] is None

    def wait(reservation):
        raise AssertionError("no reservation was made")

    for _ in range(1000):
        with pytest.raises(FetchFailed, match="allows no request for 17 s"):
            LimiterClient(limiter.reserve, wait).acquire(1)
    assert limiter.reserve(0) == before
    clock.now += before[1]
    reservation, left = limiter.reserve(0)
    assert reservation is not None
    assert left == 0


def test_a_pause_counts_as_waiting():
    clock = Clock()
    limiter = RateLimiter(100, 100, clock=clock)
    limiter.pause(10)
    assert limiter.reserve(9) == (None, 10)
    assert limiter.reserve(10)[1] == 10


def test_reservations_cover_several_requests_only_while_no_client_waits():
    clock = Clock()
    limiter = RateLimiter(300_000, 300, lease_seconds=1.0, clock=clock)
    first, _ = limiter.reserve(math.inf)
    assert first.count > 10
    waits = {}
    for client in range(30_000):
        reservation, waits[client] = limiter.reserve(math.inf)
    assert reservation.count == 1
    assert waits[29_999] < 31


@pytest.mark.parametrize(("requests", "seconds"), [(5000, 300.0), (40, 2.0), (None, 300.0)])
def test_the_maximum_number_of_fetches_in_flight_all_get_a_slot(requests, seconds):
    config = FetchConfig(requests=requests, window_seconds=seconds, rate_limit_wait_seconds=400)
    count = config.in_flight(4)
    assert count == int((requests or 3000) / seconds * 200)
    limiter = RateLimiter(requests or 3000, seconds, lease_seconds=1.0, clock=Clock())
    for _ in range(count):
        reservation, wait = limiter.reserve(config.rate_limit_wait_seconds)
        assert reservation is not None
    assert wait < 220
    assert config.model_copy(update={"rate_limit_wait_seconds": 1e6}).in_flight(4) // 3 == count
    assert FetchConfig(requests=1).in_flight(64) == 64
