"""The download of one file: retried, resumed, verified, and then moved to its target.

This module counts failures, waits and verifies; `exchange` sends one request.
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
from pipelines.transfers.announced_content import AnnouncedContent
from pipelines.transfers.budget import RequestBudget
from pipelines.transfers.exchange import (
    ContentChanged,
    Exchange,
    RetryableError,
    time_limit_message,
)
from pipelines.transfers.fetch_config import FetchConfig
from pipelines.transfers.outcome import FetchedFile, FetchFailed, file_sha256
from pipelines.transfers.partial_file import PartialFile, open_partial_file, partial_folder
from pipelines.transfers.size_limit import SizeLimit, glb_limit

__all__ = ["download"]

_PROGRESS_BYTES = 1 << 18
"""A failed request that received this many bytes resets the count of consecutive failures."""


def download(
    url: str,
    target: Path,
    check: Callable[[Path], str],
    config: FetchConfig,
    budget: RequestBudget,
    token: str | None = None,
    local: Path | None = None,
    limit: SizeLimit | None = None,
) -> FetchedFile:
    """Write the file of a URL to `target`, atomically and only if it is what the server announced.

    `check` returns what is wrong with a complete file, or an empty text. `local` is a file that may
    have the same content; if it has, it is copied instead. The token is sent only to the URL's own
    host. A file above `limit`, by default that of an object's file, is refused before its first
    byte if its size is announced. Raises FetchFailed.
    """
    try:
        with open_partial_file(partial_folder(config.partial_folder), url) as partial_file:
            exchange = Exchange(url, config, token, limit or glb_limit(url))
            transfer = _Transfer(url, partial_file, check, config, budget, exchange)
            with asyncio.Runner() as runner:
                return transfer.run(runner, target, local)
    except OSError as error:
        raise FetchFailed(
            FailureKind.STORAGE, f"{url}: cannot write the download: {error}"
        ) from None


class _Transfer:
    """The requests of one download, with the counts and the time that limit them."""

    def __init__(
        self,
        url: str,
        partial_file: PartialFile,
        check: Callable[[Path], str],
        config: FetchConfig,
        budget: RequestBudget,
        exchange: Exchange,
    ) -> None:
        self._url = url
        self._partial = partial_file
        self._check = check
        self._config = config
        self._budget = budget
        self._exchange = exchange
        self._failures = 0
        """Consecutive failed requests without progress."""
        self._wrong_contents = 0
        """Complete files with wrong bytes; never reset."""
        self._spent_seconds = 0.0
        """Time spent on requests and retry waits, without waits for the request budget."""
        self._backoff = Backoff(
            first_seconds=config.backoff_seconds, max_seconds=config.max_backoff_seconds, jitter=1.0
        )
        # Seeded by the URL, so that workers that failed together do not retry together.
        self._random = random.Random(url)  # noqa: S311

    def run(self, runner: asyncio.Runner, target: Path, local: Path | None) -> FetchedFile:
        """Send requests until the file is complete. Raises FetchFailed."""
        try:
            while True:
                self._budget.acquire(self._config.rate_limit_wait_seconds)
                fetched = self._attempt(runner, target, local)
                if fetched is not None:
                    return fetched
        finally:
            runner.run(self._exchange.close())

    def _attempt(
        self, runner: asyncio.Runner, target: Path, local: Path | None
    ) -> FetchedFile | None:
        """Send one request; return None if another one is needed."""
        before = self._partial.size
        try:
            announced = self._request(runner, local)
        except RetryableError as error:
            self._wait_to_retry(error, received=self._partial.size - before)
            return None
        except ContentChanged as error:
            self._partial.restart(None)
            raise FetchFailed(FailureKind.CHANGED, f"{self._url}: {error}") from None
        if announced.is_local:
            assert local is not None
            return self._accept(local, announced, lambda: _copy(local, target))
        return self._accept(self._partial.path, announced, lambda: self._partial.move(target))

    def _request(self, runner: asyncio.Runner, local: Path | None) -> AnnouncedContent:
        """Run one exchange, and apply the server's rate limits to the budget."""
        started = time.monotonic()
        try:
            is_local = partial(_has_content, local)
            return runner.run(self._exchange.run(self._partial, self._seconds_left, is_local))
        finally:
            self._spent_seconds += time.monotonic() - started
            limits = self._exchange.rate_limits
            if limits.policy is not None:
                self._budget.limit(*limits.policy)
            if limits.reset_seconds is not None:
                self._budget.pause(limits.reset_seconds)

    def _wait_to_retry(self, error: RetryableError, received: int) -> None:
        """Count a failed request that received this many bytes, and wait.

        Raises FetchFailed if no attempt is left.
        """
        if error.wrong_bytes:
            self._count_wrong_content(str(error))
        self._failures = 1 if received >= _PROGRESS_BYTES else self._failures + 1
        if self._failures >= self._config.attempts:
            text = f"{error} (attempts: {self._failures}); {self._partial.size} bytes are kept"
            raise FetchFailed(FailureKind.DOWNLOAD, f"{self._url}: {text}") from None
        seconds = max(
            error.wait_seconds or 0.0, self._backoff.seconds(self._failures, self._random)
        )
        if error.for_all_clients:
            self._budget.pause(seconds)
        else:
            self._sleep(seconds)

    def _accept(
        self, path: Path, announced: AnnouncedContent, write_target: Callable[[], None]
    ) -> FetchedFile | None:
        """Verify a complete file and write it to the target; return None to download it again."""
        size, sha256 = path.stat().st_size, file_sha256(path)
        if announced.sha256 is not None and sha256 != announced.sha256:
            problem = f"SHA-256 {sha256[:12]}…, the server announced {announced.sha256[:12]}…"
        elif announced.size not in (None, size):
            problem = f"{size} bytes, the server announced {announced.size}"
        else:
            problem = self._check(path)
            if problem and announced.sha256 is not None:
                # The file is wrong at its source: another request would return the same bytes.
                self._partial.restart(None)
                raise FetchFailed(FailureKind.MALFORMED, f"{self._url}: {problem}")
        if not problem:
            write_target()
            return FetchedFile(sha256=sha256, num_bytes=size)
        self._count_wrong_content(problem)
        self._sleep(self._backoff.seconds(self._wrong_contents, self._random))
        return None

    def _count_wrong_content(self, problem: str) -> None:
        self._partial.restart(None)
        self._wrong_contents += 1
        if self._wrong_contents >= self._config.attempts:
            text = f"wrong bytes (attempts: {self._wrong_contents}): {problem}"
            raise FetchFailed(FailureKind.CORRUPT, f"{self._url}: {text}") from None

    @property
    def _seconds_left(self) -> float:
        return self._config.total_seconds - self._spent_seconds

    def _sleep(self, seconds: float) -> None:
        if seconds >= self._seconds_left:
            raise FetchFailed(
                FailureKind.DOWNLOAD,
                time_limit_message(self._url, self._config.total_seconds, self._partial.size),
            ) from None
        time.sleep(seconds)
        self._spent_seconds += seconds


def _has_content(path: Path | None, announced: AnnouncedContent) -> bool:
    """Return whether a local file has the announced SHA-256."""
    if path is None or announced.sha256 is None:
        return False
    try:
        size = path.stat().st_size
        return announced.size in (None, size) and file_sha256(path) == announced.sha256
    except OSError:  # it was removed, or may not be read
        return False


def _copy(source: Path, target: Path) -> None:
    with atomic_file(target, sync=False) as temporary:
        shutil.copyfile(source, temporary)
