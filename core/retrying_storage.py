"""A storage for long runs: it reads ranges with a time limit, retries and a cache."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from core.config import Config
from core.range_cache import RangeCache
from core.ranges import Range
from core.retry import Backoff, retry
from core.storage import Storage, storage_errors

__all__ = ["PatientStorage", "ReadConfig"]

_log = logging.getLogger(__name__)

_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError)
"""Errors that another attempt does not change."""


class ReadConfig(Config):
    """How byte ranges are read from an object store; a local folder needs none of it."""

    attempts: PositiveInt = 5
    """Attempts to read before the run fails."""
    timeout_seconds: PositiveFloat = 60.0
    """Time limit of one attempt, on S3 and other stores that are read asynchronously."""
    backoff_seconds: Annotated[float, Field(ge=0)] = 0.5
    """Bound of the random wait before the second attempt; it doubles with each one."""
    max_backoff_seconds: Annotated[float, Field(ge=0)] = 30.0
    """Largest bound of a wait."""
    cache: Path | None = None
    """Folder on each node that keeps what was read, for all its processes; by default none."""
    cache_bytes: NonNegativeInt = 100 * 10**9
    """Largest size of that folder."""


class PatientStorage(Storage):
    """Reads ranges as `ReadConfig` says, where the storage is not a local folder.

    Files must not change under their names, as shards do not.
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
                _log.warning("%s: no cache: %s", config.cache, error)

    def __reduce__(self) -> tuple[type["PatientStorage"], tuple[str, ReadConfig]]:  # type: ignore[override]
        return PatientStorage, (self.uri, self._config)

    def read_ranges(self, path: str, ranges: Sequence[Range]) -> list[bytes]:
        """Read as any storage does, except for what the cache holds."""
        cache, name = self._cache, f"{self.uri}/{path}"
        if cache is None:
            return super().read_ranges(path, ranges)
        found = {span: cache.get(name, span) for span in ranges}
        missing = [span for span, content in found.items() if content is None]
        for span, content in zip(missing, super().read_ranges(path, missing), strict=True):
            found[span] = content
            self._keep(name, span, content)
        return [found[span] or b"" for span in ranges]

    def read_spans(
        self, path: str, spans: Sequence[Range], timeout: float | None = None
    ) -> list[bytes]:
        """Read as any storage does, with the configured attempts and time limit."""
        config, read = self._config, super().read_spans
        if self.is_local:
            return read(path, spans, timeout)

        def warn(failures: int, error: Exception, seconds: float) -> None:
            _log.warning(
                "%s/%s: %s; attempt %d of %d in %.1f s",
                self.uri, path, _reason(error), failures + 1, config.attempts, seconds,
            )  # fmt: skip

        try:
            return retry(
                lambda: read(path, spans, timeout or config.timeout_seconds),
                attempts=config.attempts,
                wait=self._backoff.seconds,
                is_transient=_is_transient,
                before_wait=warn,
            )
        except (EOFError, *_FINAL):
            raise
        except storage_errors() as error:
            raise OSError(f"{_reason(error)} (attempt {config.attempts}, the last)") from error

    def _keep(self, name: str, span: Range, content: bytes) -> None:
        if self._cache is None:
            return
        try:
            self._cache.put(name, span, content)
        except OSError as error:
            _log.warning("%s: the cache is given up: %s", self._config.cache, error)
            self._cache = None


def _is_transient(error: Exception) -> bool:
    """Whether another attempt may succeed. EOFError: an answer may have been cut short."""
    return isinstance(error, storage_errors(EOFError)) and not isinstance(error, _FINAL)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
