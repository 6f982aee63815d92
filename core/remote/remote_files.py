"""A file system of another machine: every operation has a time limit, and long waits are reported.

A store that has never answered this process gets one minute: a wrong address or a closed firewall
is more likely than an outage. A store that has answered gets longer, so that long runs survive
outages: clients, commits and stages repeat what failed.
"""

import os
import time
import weakref
from functools import partial
from typing import Any

import fsspec.exceptions
from fsspec.asyn import AsyncFileSystem, sync

from core.remote.waiting import waiting_for

__all__ = ["RemoteFiles"]

_FIRST_SECONDS = 60.0
"""Time limit of an operation until the store has answered this process once."""
_QUESTION_SECONDS = 300.0
"""Time limit of a question about one file, or of a removal, with all retries of the client."""
_TRANSFER_SECONDS = 3600.0
"""Time limit of a read into memory, or of a listing of many pages."""
_SLOWEST = 100_000
"""Bytes per second: a file that is read in parts gets more time as long as this many arrive."""
_FILE_SECONDS = 24 * 3600.0
"""Time limit of copying a file to or from a disk: a shard of gigabytes over a slow link may take
hours. The client limits each of its requests."""
_QUESTIONS = {"exists": "look-up", "info": "look-up", "isfile": "look-up", "rm_file": "removal"}
_TRANSFERS = {"ls": "listing", "find": "listing", "cat_file": "read", "cat_ranges": "read"}
_FILES = {"get_file": "read", "put_file": "write", "pipe_file": "write"}
_PURPOSES = {**_QUESTIONS, **_TRANSFERS, **_FILES}
"""The operations with time limits, and their purpose in messages."""
_ANSWERS = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError)
"""Errors that are the store's answer."""
_answered: weakref.WeakSet[Any] = weakref.WeakSet()
"""The file systems that have answered this process."""


class RemoteFiles:
    """An fsspec file system whose operations have time limits if its client is asynchronous."""

    def __init__(self, fs: Any, uri: str) -> None:
        self._fs = fs
        self._server = _server(uri)

    def __getattr__(self, name: str) -> Any:
        if name in _PURPOSES:
            return partial(self._run, name)
        return getattr(self._fs, name)

    def cat_file(self, path: str, **options: Any) -> bytes:
        """Return a whole file, or a part of it."""
        if "s3" in self._fs.protocol:
            # Its client would ask for the size of every file first, in case it is a large one.
            options["max_concurrency"] = 1
        return bytes(self._run("cat_file", path, **options))

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """Open a file; with a store that has not answered yet, look it up first."""
        if mode == "rb" and self._fs not in _answered:
            self._run("info", path)
        with waiting_for(self._server, f"opening of {path}"):
            file = self._fs.open(path, mode, **options)
        return _RemoteFile(file, self._server, path) if mode == "rb" else file

    def _run(self, name: str, *args: Any, **options: Any) -> Any:
        purpose = f"{_PURPOSES[name]} of {_subject(args)}"
        with waiting_for(self._server, purpose):
            try:
                result = self._call(name, purpose, args, options)
            except _ANSWERS:
                _answered.add(self._fs)
                raise
        _answered.add(self._fs)
        return result

    def _call(self, name: str, purpose: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        # A cache in front of a store has these operations as plain functions only.
        if not issubclass(type(self._fs), AsyncFileSystem) or "timeout" in options:
            return getattr(self._fs, name)(*args, **options)
        seconds = _QUESTION_SECONDS if name in _QUESTIONS else _TRANSFER_SECONDS
        seconds = _FILE_SECONDS if name in _FILES else seconds
        if self._fs not in _answered:
            seconds = _FIRST_SECONDS
        work = getattr(self._fs, f"_{name}")
        try:
            return sync(self._fs.loop, work, *args, timeout=seconds, **options)
        except fsspec.exceptions.FSTimeoutError:
            raise TimeoutError(
                f"{self._server}: no complete answer within {seconds:g} s ({purpose}); check the "
                "network and the store's address (for S3, AWS_ENDPOINT_URL), then run the same "
                "command again"
            ) from None
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            # Clients of stores do not expect answers without the usual headers.
            raise OSError(
                f"{self._server}: the answer cannot be read ({type(error).__name__}: {error}; "
                f"{purpose}); is it an object store?"
            ) from error


class _RemoteFile:
    """An open file of a store, whose reads together have a time limit."""

    def __init__(self, file: Any, server: str, path: str) -> None:
        self._file = file
        self._server = server
        self._path = path
        self._end = time.monotonic() + _TRANSFER_SECONDS
        """The time limit, which every block of bytes moves."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_RemoteFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes at most, or with -1 all bytes."""
        if time.monotonic() > self._end:
            raise TimeoutError(
                f"{self._server}: {self._path} arrives too slowly (less than {_SLOWEST:,} bytes "
                "per second for an hour): copy the file to a disk, and use the copy"
            )
        with waiting_for(self._server, f"read of {self._path}"):
            data = bytes(self._file.read(size))
        self._end += len(data) / _SLOWEST
        return data


def _server(uri: str) -> str:
    """Return the address of a URI's store, as far as it is known: its endpoint, or its bucket."""
    scheme, _, rest = uri.partition("://")
    bucket = f"{scheme}://{rest.partition('/')[0].rpartition('@')[2]}"
    endpoint = ""
    if scheme.rpartition(":")[2] in ("s3", "s3a"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return f"{bucket} at {endpoint.rpartition('@')[2]}" if endpoint else bucket


def _subject(args: tuple[Any, ...]) -> str:
    """Return the file of an operation; of several, the first one."""
    first = args[0] if args else ""
    return str(first[0] if isinstance(first, list) and first else first)
