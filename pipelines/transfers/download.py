"""The download of one file: retried, resumed, verified, and then moved to its place.

This module counts, waits and verifies; one request is in `exchange`.
"""

import asyncio
import random
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from core.atomic import atomic_file
from core.failures import FailureKind
from core.retry import Backoff
from pipelines.transfers.budget import RequestBudget
from pipelines.transfers.exchange import Announced, ContentChanged, Exchange, RetryableError
from pipelines.transfers.fetch_config import FetchConfig
from pipelines.transfers.outcome import Fetched, FetchFailed, file_sha256
from pipelines.transfers.parts import Part, open_part, parts_folder

__all__ = ["download"]

_PROGRESS_BYTES = 1 << 18
"""A failed request that brought this many bytes restarts the count of failures in a row."""


def download(
    url: str,
    target: Path,
    check: Callable[[Path], str],
    config: FetchConfig,
    budget: RequestBudget,
    token: str | None = None,
    local: Path | None = None,
) -> Fetched:
    """Write the file of a URL to `target`, atomically and only if it is what the server announced.

    `check` returns what is wrong with a whole file (empty: nothing). `local` is a file that may
    have the same content: then it is copied instead. The token is sent to the URL's own host and
    to no other. Raises FetchFailed.
    """
    try:
        with open_part(parts_folder(config.parts), url) as part:
            transfer = _Transfer(url, part, check, config, budget, token)
            with asyncio.Runner() as runner:
                return transfer.run(runner, target, local)
    except OSError as error:
        raise FetchFailed(FailureKind.STORAGE, f"{url}: {error}") from None


class _Transfer:
    """The requests of one download, with the counts and the time that bound them."""

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
        self._exchange = Exchange(url, config, token)
        self._failures = 0
        """Failed requests in a row, without progress between them."""
        self._wrong_contents = 0
        """Times that whole contents were wrong; never reset."""
        self._spent_seconds = 0.0
        """Of requests and retry waits; waiting for the budget does not count."""
        self._backoff = Backoff(
            first_seconds=config.backoff_seconds, max_seconds=config.max_backoff_seconds, jitter=1.0
        )
        # Seeded by the object: workers that failed together do not retry together.
        self._random = random.Random(url)  # noqa: S311

    def run(self, runner: asyncio.Runner, target: Path, local: Path | None) -> Fetched:
        """Send requests until the file is here. Raises FetchFailed."""
        try:
            while True:
                self._budget.take(self._config.wait_seconds)
                fetched = self._attempt(runner, target, local)
                if fetched is not None:
                    return fetched
        finally:
            runner.run(self._exchange.close())

    def _attempt(self, runner: asyncio.Runner, target: Path, local: Path | None) -> Fetched | None:
        """Send one request; None if another one is needed."""
        before = self._part.size
        try:
            announced = self._request(runner, local)
        except RetryableError as error:
            self._wait_to_retry(error, gained=self._part.size - before)
            return None
        except ContentChanged as error:
            self._part.restart(None)
            raise FetchFailed(FailureKind.CHANGED, f"{self._url}: {error}") from None
        if announced.is_local:
            assert local is not None
            return self._accept(local, announced, lambda: _copy(local, target))
        return self._accept(self._part.path, announced, lambda: self._part.move(target))

    def _request(self, runner: asyncio.Runner, local: Path | None) -> Announced:
        """Run one exchange, and pass on what the server said about its rate limits."""
        started = time.monotonic()
        try:
            is_local = partial(_has_content, local)
            return runner.run(self._exchange.run(self._part, self._seconds_left, is_local))
        finally:
            self._spent_seconds += time.monotonic() - started
            limits = self._exchange.rate_limits
            if limits.policy is not None:
                self._budget.limit(*limits.policy)
            if limits.reset_seconds is not None:
                self._budget.pause(limits.reset_seconds)

    def _wait_to_retry(self, error: RetryableError, gained: int) -> None:
        """Count a failed request, and wait. Raises FetchFailed if it was the last one."""
        if error.wrong_bytes:
            self._count_wrong_content(str(error))
        self._failures = 1 if gained >= _PROGRESS_BYTES else self._failures + 1
        if self._failures >= self._config.attempts:
            text = f"{error}, {self._failures} times; {self._part.size} bytes are kept"
            raise FetchFailed(FailureKind.DOWNLOAD, f"{self._url}: {text}") from None
        seconds = max(
            error.wait_seconds or 0.0, self._backoff.seconds(self._failures, self._random)
        )
        if error.for_all_clients:
            self._budget.pause(seconds)
        else:
            self._sleep(seconds)

    def _accept(
        self, path: Path, announced: Announced, place: Callable[[], None]
    ) -> Fetched | None:
        """Put a whole file at its place; None if its bytes are wrong and may be right next time."""
        size, sha256 = path.stat().st_size, file_sha256(path)
        if announced.sha256 is not None and sha256 != announced.sha256:
            problem = f"SHA-256 {sha256[:12]}…, promised was {announced.sha256[:12]}…"
        elif announced.size not in (None, size):
            problem = f"{size} bytes, promised were {announced.size}"
        else:
            problem = self._check(path)
            if problem and announced.sha256 is not None:
                # The source's own file is wrong: another request brings the same bytes.
                self._part.restart(None)
                raise FetchFailed(FailureKind.MALFORMED, f"{self._url}: {problem}")
        if not problem:
            place()
            return Fetched(sha256=sha256, num_bytes=size)
        self._count_wrong_content(problem)
        self._sleep(self._backoff.seconds(self._wrong_contents, self._random))
        return None

    def _count_wrong_content(self, problem: str) -> None:
        self._part.restart(None)
        self._wrong_contents += 1
        if self._wrong_contents >= self._config.attempts:
            text = f"wrong bytes {self._wrong_contents} times: {problem}"
            raise FetchFailed(FailureKind.CORRUPT, f"{self._url}: {text}") from None

    @property
    def _seconds_left(self) -> float:
        return self._config.total_seconds - self._spent_seconds

    def _sleep(self, seconds: float) -> None:
        if seconds >= self._seconds_left:
            text = f"more than {self._config.total_seconds:g} s in all"
            message = f"{self._url}: {text}; {self._part.size} bytes are kept"
            raise FetchFailed(FailureKind.DOWNLOAD, message) from None
        time.sleep(seconds)
        self._spent_seconds += seconds


def _has_content(path: Path | None, announced: Announced) -> bool:
    """Return whether a local file has the announced SHA-256."""
    if path is None or announced.sha256 is None:
        return False
    return announced.size in (None, path.stat().st_size) and file_sha256(path) == announced.sha256


def _copy(source: Path, target: Path) -> None:
    with atomic_file(target, sync=False) as temporary:
        shutil.copyfile(source, temporary)
