"""An object store that misbehaves: every operation ends within its limit, with one line."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
import pytest
from s3fs import S3FileSystem

from core.remote import remote_files, store_client
from core.storage import Storage, storage_errors
from tests.support.bad_servers import (
    UNREACHABLE,
    BadServer,
    closed,
    drip,
    flood,
    http,
    raw,
    serve_badly,
    silent,
    slow_headers,
    unreachable,
)
from tests.support.lrm import run_lrm

SECONDS = 0.4
SLOW_DOWN = "<Error><Code>SlowDown</Code></Error>"
LISTING = "<ListBucketResult><Contents><Key>x/a</Key>"


@pytest.fixture(scope="module")
def store() -> Iterator[BadServer]:
    """Yield the server of all buckets. Its clients are created once, because that is slow."""
    with serve_badly(http("", "404 Not Found")) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.address)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        assert not Storage("s3://bucket").exists("a")
        yield server
        fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def server(store: BadServer, monkeypatch: pytest.MonkeyPatch) -> BadServer:
    """Return the server as one that has not answered yet; it gets less time than a real one."""
    monkeypatch.setattr(remote_files, "_FIRST_SECONDS", SECONDS)
    monkeypatch.setattr(store_client, "_MAX_ANSWER", 1 << 20)
    remote_files._answered.clear()
    store.paths.clear()
    return store


def announced(num_bytes: int) -> Callable[..., None]:
    return http(b"[", length=False, Content_Length=str(num_bytes))


OPERATIONS: dict[str, Callable[[Storage], Any]] = {
    "read": lambda root: root.read("dataset.json"),
    "open": lambda root: root.open("captions.csv").read(),
    "list": lambda root: root.list_files("x"),
    "find": lambda root: root.find_files("x"),
    "exists": lambda root: root.exists(""),
    "write": lambda root: root.write("a", b"b"),
}
MISBEHAVIOURS = {
    "silent": silent,
    "closed": closed,
    "drip": drip,
    "slow headers": slow_headers,
    "503": http(SLOW_DOWN, "503 Slow Down"),
    "garbage": raw(b"\x00\x01 garbage\r\n\r\n"),
}


@pytest.mark.parametrize(
    ("operation", "wrong"),
    [("read", wrong) for wrong in MISBEHAVIOURS]
    + [("list", wrong) for wrong in MISBEHAVIOURS]
    + [(operation, "silent") for operation in ("open", "find", "exists", "write")],
)
def test_an_operation_ends(operation: str, wrong: str, server: BadServer):
    server.behaviours = [MISBEHAVIOURS[wrong]]
    started = time.monotonic()
    with pytest.raises(storage_errors()) as raised:
        OPERATIONS[operation](Storage("s3://bucket/root"))
    assert time.monotonic() - started < 10
    message = str(raised.value)
    assert message.startswith(f"s3://bucket at {server.address}: ")
    # A client that needs the length of a file looks for it in headers that a drip lacks.
    assert re.search("no complete answer within .*AWS_ENDPOINT_URL|cannot be read", message)


@pytest.mark.parametrize(
    "wrong",
    [
        http("<html>Sign in</html>"),
        http("<!DOCTYPE html><p>Sign in", Content_Type="text/html"),
        http(LISTING),
        flood(BadServer(), b"<a>"),
    ],
    ids=["page", "page with a type", "truncated", "endless"],
)
@pytest.mark.parametrize("operation", ["list", "find"])
def test_a_wrong_listing_is_no_empty_folder(
    operation: str, wrong: Any, server: BadServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(remote_files, "_FIRST_SECONDS", 1.5)
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    server.behaviours = [wrong]
    with pytest.raises(storage_errors()):
        OPERATIONS[operation](Storage("s3://bucket/root"))


def test_a_store_that_has_answered_gets_more_time(
    server: BadServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(remote_files, "_FIRST_SECONDS", 60.0)
    root = Storage("s3://bucket/root")
    slow: Callable[..., None] = lambda connection, path: (  # noqa: E731
        time.sleep(2 * SECONDS),
        http(b"content")(connection, path),
    )
    server.behaviours = [http("", "404 Not Found"), slow]
    with pytest.raises(FileNotFoundError):
        root.read("a")
    monkeypatch.setattr(remote_files, "_FIRST_SECONDS", SECONDS)
    assert root.read("a") == b"content"


@pytest.mark.parametrize("size", [0, 7])
def test_a_file_is_read_with_one_request(size: int, server: BadServer):
    server.behaviours = [http(b"c" * size)]
    assert Storage("s3://bucket/root").read("a") == b"c" * size
    assert server.paths == ["/bucket/root/a"]


@pytest.mark.parametrize("wrong", [announced(10**12), flood(BadServer())])
def test_a_file_that_is_read_whole_has_a_size_limit(
    wrong: Callable[..., None], server: BadServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(remote_files, "_FIRST_SECONDS", 60.0)
    monkeypatch.setattr(store_client, "_MAX_CONTENT", 1 << 20)
    server.behaviours = [wrong]
    with pytest.raises(OSError, match=r"the answer has more than (1|2048) MiB"):
        Storage("s3://bucket/root").read("a")
    assert len(server.paths) == 1


def test_an_open_file_that_drips_ends(server: BadServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote_files, "_FIRST_SECONDS", 60.0)
    monkeypatch.setattr(remote_files, "_TRANSFER_SECONDS", 0.0)
    server.behaviours = [http(b"content")]
    with (
        Storage("s3://bucket/root").open("captions.csv") as file,
        pytest.raises(TimeoutError, match=r"captions.csv arrives too slowly"),
    ):
        file.read(1)
    monkeypatch.setattr(remote_files, "_TRANSFER_SECONDS", 60.0)
    with Storage("s3://bucket/root").open("captions.csv") as file:
        assert file.read() == b"content"


@pytest.mark.parametrize("reason", UNREACHABLE)
def test_a_store_that_cannot_be_reached(
    reason: str, server: BadServer, monkeypatch: pytest.MonkeyPatch
):
    filesystem = fsspec.get_filesystem_class("s3")
    with unreachable(reason) as address, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setattr(filesystem, "_cache", {})
        with pytest.raises(storage_errors()) as raised:
            Storage("s3://bucket/root").read("a")
    assert f"s3://bucket at {address}: no complete answer within" in str(raised.value)


@pytest.mark.parametrize("command", ["status", "verify"])
def test_a_command_on_a_silent_store_says_what_it_waited_for(command: str, server: BadServer):
    server.behaviours = [silent]
    answer = run_lrm(command, "--root", "s3://bucket/root")
    assert answer.code in (1, 2)
    (line,) = answer.err.strip().splitlines()
    assert server.address in line
    assert "AWS_ENDPOINT_URL" in line
