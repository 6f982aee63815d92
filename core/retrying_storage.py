"""A retrying storage for long runs: it reads ranges with a timeout, retries and a cache."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field

from core.config import Config, NonNegativeFloat, PositiveInt, Seconds
from core.range_cache import RangeCache
from core.ranges import Range
from core.retry import Backoff, retry
from core.storage import Storage, storage_errors

__all__ = ["ReadConfig", "RetryingStorage"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError)
"""Errors that are not retried."""


class ReadConfig(Config):
    """How byte ranges are read from an object store; ignored for a local folder."""

    attempts: PositiveInt = 5
    """Maximum attempts of one read; then the run fails."""
    timeout_seconds: Seconds = 60.0
    """Timeout of one attempt in seconds, on S3 and other stores with asynchronous clients."""
    backoff_seconds: NonNegativeFloat = 0.5
    """Upper bound in seconds of the random wait before the second attempt; it doubles with each."""
    max_backoff_seconds: NonNegativeFloat = 30.0
    """Maximum wait before an attempt, in seconds."""
    cache: Path | None = None
    """Folder on each node that caches read ranges for all its processes; by default no cache."""
    cache_bytes: Annotated[int, Field(ge=0, le=2**50)] = 100 * 10**9
    """Maximum size of the cache folder, in bytes."""


class RetryingStorage(Storage):
    """A storage that reads ranges with retries and a cache, unless it is a local folder.

    The content of a file must never change; that of a shard never does.
    """

    def __init__(self, uri: str, config: ReadConfig) -> None:
        super().__init__(uri)
        self._config = config
        self._backoff = Backoff(
            first_seconds=config.backoff_seconds, max_seconds=config.max_backoff_seconds, jitter=1.0
        )
        self._cache: RangeCache | None = None
        if config.cache is not None and config.cache_bytes and not self.is_local:
            try:
                self._cache = RangeCache(config.cache, config.cache_bytes)
            except OSError as error:
                _log.warning("%s: cannot use this folder as a cache: %s", config.cache, error)

    def __reduce__(self) -> tuple[type["RetryingStorage"], tuple[str, ReadConfig]]:  # type: ignore[override]
        return RetryingStorage, (self.uri, self._config)

    def read_ranges(self, path: str, ranges: Sequence[Range]) -> list[bytes]:
        """Return the bytes of each range of a file, from the cache where it has them."""
        cache, name = self._cache, f"{self.uri}/{path}"
        if cache is None:
            return super().read_ranges(path, ranges)
        contents = {span: cache.get(name, span) for span in ranges}
        missing = [span for span, content in contents.items() if content is None]
        for span, content in zip(missing, super().read_ranges(path, missing), strict=True):
            contents[span] = content
            self._store_in_cache(name, span, content)
        return [contents[span] or b"" for span in ranges]

    def read_immutable(self, path: str, *, cached: bool = True) -> bytes:
        """Return the content of a file, with the configured attempts and timeout.

        It is taken from the cache if that has it, unless `cached` is false.
        """
        if self.is_local:
            return super().read_immutable(path)
        name = f"{self.uri}/{path}"
        content = self._cache.get(name, None) if self._cache is not None and cached else None
        if content is None:
            # Only asynchronous clients know time limits.
            limit = {"timeout": self._config.timeout_seconds} if self._fs.async_impl else {}
            content = self._retried(
                path, lambda: bytes(self._fs.cat_file(self.resolve(path), **limit))
            )
            self._store_in_cache(name, None, content)
        return content

    def read_spans(
        self, path: str, spans: Sequence[Range], timeout: float | None = None
    ) -> list[bytes]:
        """Read each span with its own request, with the configured attempts and timeout."""
        read = super().read_spans
        if self.is_local:
            return read(path, spans, timeout)
        seconds = timeout or self._config.timeout_seconds
        return self._retried(path, lambda: read(path, spans, seconds))

    def _retried(self, path: str, read: Callable[[], T]) -> T:
        """Return the result of a read, with the configured attempts."""
        config = self._config

        def log_retry(failures: int, error: Exception, seconds: float) -> None:
            _log.warning(
                "%s/%s: %s; attempt %d of %d in %.1f s",
                self.uri, path, _reason(error), failures + 1, config.attempts, seconds,
            )  # fmt: skip

        try:
            return retry(
                read,
                attempts=config.attempts,
                wait=self._backoff.seconds,
                is_transient=_is_transient,
                before_wait=log_retry,
            )
        except (EOFError, *_FINAL):
            raise
        except storage_errors() as error:
            raise OSError(f"{_reason(error)} (after {config.attempts} attempts)") from error

    def _store_in_cache(self, name: str, span: Range | None, content: bytes) -> None:
        if self._cache is None:
            return
        try:
            self._cache.put(name, span, content)
        except OSError as error:
            _log.warning(
                "%s: cannot write to the cache, continuing without it: %s",
                self._config.cache,
                error,
            )
            self._cache = None


def _is_transient(error: Exception) -> bool:
    """Return whether another attempt may succeed; after an EOFError, the response may be short."""
    return isinstance(error, storage_errors(EOFError)) and not isinstance(error, _FINAL)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
