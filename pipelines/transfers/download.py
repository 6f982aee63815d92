"""The download of one file: retried, resumed, verified, and then put at its place.

Waiting is done here; what one request does is in `exchange`.
"""

import asyncio
import random
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from core.atomic import atomic_file
from core.retry import Backoff
from pipelines.transfers.budget import RequestBudget
from pipelines.transfers.exchange import Again, Changed, Exchange, Promise
from pipelines.transfers.fetch_config import FetchConfig
from pipelines.transfers.outcome import Fetched, FetchFailed, file_sha256
from pipelines.transfers.parts import Part, open_part, parts_folder

__all__ = ["download"]

_GAIN = 1 << 18
"""Bytes that a request must bring before the next failure counts as the first one."""


def download(
    url: str,
    target: Path,
    check: Callable[[Path], str],
    config: FetchConfig,
    budget: RequestBudget,
    token: str | None = None,
    seed: Path | None = None,
) -> Fetched:
    """Write the file of a URL to `target`, atomically and only if it is what the server promised.

    `check` says what is wrong with a whole file (empty: nothing); `seed` is a local file that may
    be the very one. The token is sent to the URL's own host and to no other. Raises FetchFailed.
    """
    try:
        with open_part(parts_folder(config.parts), url) as part:
            transfer = _Transfer(url, part, check, config, budget, token)
            with asyncio.Runner() as runner:
                return transfer.run(runner, target, seed)
    except OSError as error:
        raise FetchFailed("storage", f"{url}: {error}") from None


class _Transfer:
    """Counts the attempts and the time of one download."""

    def __init__(
        self,
        url: str,
        part: Part,
        check: Callable[[Path], str],
        config: FetchConfig,
        budget: RequestBudget,
        token: str | None,
    ) -> None:
        self._url = url
        self._part = part
        self._check = check
        self._config = config
        self._budget = budget
        self._token = token
        self._fruitless = 0
        self._wrong = 0
        self._spent = 0.0
        self._backoff = Backoff(
            first_seconds=config.backoff_seconds, max_seconds=config.max_backoff_seconds, jitter=1.0
        )
        # Seeded by the object: workers that failed together do not come back together.
        self._random = random.Random(url)  # noqa: S311

    def run(self, runner: asyncio.Runner, target: Path, seed: Path | None) -> Fetched:
        """Ask until the file is here. Raises FetchFailed."""
        exchange = Exchange(self._url, self._config, self._token)
        try:
            while True:
                self._budget.take(self._config.wait_seconds)
                fetched = self._attempt(runner, exchange, target, seed)
                if fetched is not None:
                    return fetched
        finally:
            runner.run(exchange.close())

    def _attempt(
        self, runner: asyncio.Runner, exchange: Exchange, target: Path, seed: Path | None
    ) -> Fetched | None:
        """One request; None if another one may bring more."""
        before, started = self._part.size, time.monotonic()
        again: Again | None = None
        try:
            left = self._config.total_seconds - self._spent
            promise = runner.run(exchange.run(self._part, left, partial(_is, seed)))
        except Again as error:
            again = error
        except Changed as error:
            self._part.restart(None)
            raise FetchFailed("changed", f"{self._url}: {error}") from None
        finally:
            self._spent += time.monotonic() - started
            self._announce(exchange)
        if again is not None:
            self._failed(again, self._part.size - before)
            return None
        if promise.is_seed:
            assert seed is not None
            return self._verify(seed, promise, lambda: _copy(seed, target))
        return self._verify(self._part.path, promise, lambda: self._part.move(target))

    def _failed(self, again: Again, gained: int) -> None:
        """Count a failed request, and wait. Raises FetchFailed if it was the last one."""
        if again.wrong:
            self._count_wrong(str(again))
        self._fruitless = 1 if gained >= _GAIN else self._fruitless + 1
        if self._fruitless >= self._config.attempts:
            text = (
                f"{self._url}: {again}, {self._fruitless} times; {self._part.size} bytes are kept"
            )
            raise FetchFailed("download", text)
        seconds = max(again.seconds or 0.0, self._backoff.seconds(self._fruitless, self._random))
        if again.everyone:
            self._budget.pause(seconds)
        else:
            self._sleep(seconds)

    def _count_wrong(self, problem: str) -> None:
        self._part.restart(None)
        self._wrong += 1
        if self._wrong >= self._config.attempts:
            raise FetchFailed("corrupt", f"{self._url}: wrong bytes {self._wrong} times: {problem}")

    def _verify(self, path: Path, promise: Promise, place: Callable[[], None]) -> Fetched | None:
        """Put a whole file at its place; None if its bytes are wrong and may be right next time."""
        size, sha256 = path.stat().st_size, file_sha256(path)
        if promise.sha256 is not None and sha256 != promise.sha256:
            problem = f"SHA-256 {sha256[:12]}…, promised was {promise.sha256[:12]}…"
        elif promise.size not in (None, size):
            problem = f"{size} bytes, promised were {promise.size}"
        else:
            problem = self._check(path)
            if problem and promise.sha256 is not None:
                # These are the source's own bytes: it has no others.
                self._part.restart(None)
                raise FetchFailed("malformed", f"{self._url}: {problem}")
        if not problem:
            place()
            return Fetched(sha256=sha256, num_bytes=size)
        self._count_wrong(problem)
        self._sleep(self._backoff.seconds(self._wrong, self._random))
        return None

    def _announce(self, exchange: Exchange) -> None:
        """Tell the others what the server said of its limits."""
        if exchange.policy is not None:
            self._budget.limit(*exchange.policy)
        if exchange.used_up is not None:
            self._budget.pause(exchange.used_up)

    def _sleep(self, seconds: float) -> None:
        left = self._config.total_seconds - self._spent
        if seconds >= left:
            text = f"more than {self._config.total_seconds:g} s in all"
            raise FetchFailed("download", f"{self._url}: {text}; {self._part.size} bytes are kept")
        time.sleep(seconds)
        self._spent += seconds


def _is(path: Path | None, promise: Promise) -> bool:
    """Whether a local file is the promised one beyond doubt."""
    if path is None or promise.sha256 is None or promise.size not in (None, path.stat().st_size):
        return False
    return file_sha256(path) == promise.sha256


def _copy(source: Path, target: Path) -> None:
    with atomic_file(target, sync=False) as temporary:
        shutil.copyfile(source, temporary)
