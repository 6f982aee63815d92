"""Requests to servers that misbehave: each ends within its limits, with one line that names it."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from core.remote import waiting
from glb.container import glb_problem
from pipelines.transfers.budget import LocalBudget
from pipelines.transfers.download import download
from pipelines.transfers.fetch_config import FetchConfig
from pipelines.transfers.http_client import redirect_target
from pipelines.transfers.hub_api import find_commit, list_folder
from pipelines.transfers.outcome import FetchFailed
from pipelines.transfers.size_limit import glb_limit
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
from tests.support.fake_glbs import GOOD

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = 1 << 16


@pytest.fixture
def config(tmp_path: Path) -> FetchConfig:
    return FetchConfig(
        connect_seconds=5,
        stall_seconds=0.3,
        total_seconds=1.0,
        attempts=2,
        backoff_seconds=0.01,
        rate_limit_wait_seconds=0.5,
        partial_folder=str(tmp_path / "parts"),
    )


def commit_of(server: BadServer, config: FetchConfig) -> Any:
    return find_commit(server.address, "a/b", "main", "token", config)


def entries_of(server: BadServer, config: FetchConfig) -> Any:
    return list_folder(server.address, "a/b", COMMIT, "glbs", "token", config)


WRONG_ANSWERS = {
    "silent": silent,
    "closed": closed,
    "drip": drip,
    "slow headers": slow_headers,
    "a web page": http("<html>Sign in</html>"),
    "a number": http("5"),
    "a text": http('"5"'),
    "null": http("null"),
    "nothing": http(""),
    "half": http('[{"path": "glbs/000-000", "oi'),
    "deep": http("[" * 100_000),
    "digits": http("9" * 9999),
    "not utf-8": http(b"[\xff\xfe", Content_Type="application/json; charset=utf-8"),
    "compressed": http(b"\x1f\x8b" + b"\0" * 99, Content_Encoding="gzip"),
    "a huge length": http("[]", length=False, Content_Length="9" * 17),
    "no length": http("[]", length=False, Content_Length="9" * 5000),
    "401": http("", "401 Unauthorized"),
    "403": http("", "403 Forbidden"),
    "429": http("", "429 Too Many Requests", Retry_After="86400"),
    "503": http("", "503 Service Unavailable"),
    "500": http("", "500 Internal Server Error"),
    "a loop": http("", "302 Found", Location="?again"),
    "a file": http("", "302 Found", Location="file:///etc/passwd"),
    "the machine's credentials": http("", "302 Found", Location="http://169.254.169.254/latest"),
    "half a url": http("", "302 Found", Location="http://[::1"),
    "garbage": raw(b"\x00\x01 garbage\r\n\r\n"),
    "HTTP/0.9": raw(b"<html></html>"),
    "endless header": raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000),
}


@pytest.mark.parametrize("wrong", WRONG_ANSWERS)
@pytest.mark.parametrize("ask", [commit_of, entries_of])
def test_the_api_of_a_hub_that_answers_wrongly(
    ask: Callable[..., Any], wrong: str, config: FetchConfig
):
    with serve_badly(WRONG_ANSWERS[wrong]) as server:
        started = time.monotonic()
        with pytest.raises(FetchFailed) as raised:
            ask(server, config)
        assert time.monotonic() - started < 5
        assert raised.value.kind == "download"
        assert server.address in raised.value.message
        assert "\n" not in raised.value.message
        assert len(server.paths) <= 8


@pytest.mark.parametrize("by", ["itself", "a proxy"])
@pytest.mark.parametrize("reason", UNREACHABLE)
def test_a_hub_that_cannot_be_reached(
    reason: str, by: str, config: FetchConfig, monkeypatch: pytest.MonkeyPatch
):
    config = config.model_copy(update={"connect_seconds": 0.2})
    with unreachable(reason) as address:
        hub = BadServer()
        hub.address = address if by == "itself" else "http://hub.invalid"
        if by == "a proxy":
            monkeypatch.setenv("http_proxy", address.replace("//", "//user:secret@"))
        with pytest.raises(FetchFailed, match=UNREACHABLE[reason]) as raised:
            commit_of(hub, config)
        assert raised.value.message.startswith(hub.address)
        assert (f"through the proxy {address})" in raised.value.message) == (by == "a proxy")
        assert "secret" not in raised.value.message


def test_a_proxy_that_cannot_be_used_is_named(config: FetchConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("https_proxy", "nonsense://proxy")
    with pytest.raises(FetchFailed, match=r"nonsense://proxy.*check HTTPS_PROXY"):
        find_commit("https://hub.invalid", "a/b", "main", None, config)


@pytest.mark.parametrize("ask", [commit_of, entries_of])
def test_an_answer_of_the_api_has_a_size_limit(ask: Callable[..., Any], config: FetchConfig):
    with serve_badly() as server:
        server.behaviours = [flood(server)]
        with pytest.raises(FetchFailed, match=r"more than 16 MiB|within 1 s"):
            ask(server, config)
        assert server.sent < 64 << 20


@pytest.mark.parametrize(
    "wrong", ["{}", "[]", '{"sha": 5}', '{"sha": "../../../etc"}', '{"sha": "ABC"}']
)
def test_a_commit_is_forty_digits(wrong: str, config: FetchConfig):
    with serve_badly(http(wrong)) as server, pytest.raises(FetchFailed, match=r"no commit"):
        commit_of(server, config)


def test_a_list_of_several_pages_is_complete(config: FetchConfig):
    pages = [
        http('[{"path": "glbs/a", "oid": "1"}, 5]', Link='</next?cursor=x>; rel="next"'),
        http("", "503 Service Unavailable"),
        http('[{"path": "glbs/b", "oid": "2"}, {"path": "c"}]'),
    ]
    with serve_badly(*pages) as server:
        assert entries_of(server, config) == {"a": "1", "b": "2"}
        assert server.paths[1:] == ["/next?cursor=x"] * 2


def test_pages_come_from_the_same_server(config: FetchConfig):
    link = '<http://127.0.0.2:1/next>; rel="next"'
    with serve_badly(http("[]", Link=link)) as server, pytest.raises(FetchFailed, match="another"):
        entries_of(server, config)


@pytest.mark.parametrize(
    ("origin", "target", "followed"),
    [
        ("https://hub.test/a", "https://cdn.test/b", True),
        ("https://hub.test/a", "//cdn.test/b", True),
        ("https://hub.test/a", "?x", True),
        ("http://10.0.0.1/a", "http://10.0.0.2/b", True),
        ("http://localhost:1/a", "http://127.0.0.1:2/b", True),
        ("https://hub.test/a", "http://hub.test/b", False),
        ("https://hub.test/a", "ftp://hub.test/b", False),
        ("http://hub.test/a", "data:,x", False),
        ("http://hub.test/a", "http://169.254.169.254/b", False),
        ("http://hub.test/a", "http://0xa9fea9fe/b", False),
        ("http://hub.test/a", "http://2852039166/b", False),
        ("http://hub.test/a", "http://[::ffff:169.254.169.254]/b", False),
        ("http://hub.test/a", "http://[fe80::1]/b", False),
        ("http://hub.test/a", "http://127.0.0.1/b", False),
        ("http://hub.test/a", "http://localhost/b", False),
        ("http://hub.test/a", "http://0.0.0.0/b", False),
    ],
)
def test_redirects_that_are_followed(origin: str, target: str, followed: bool):
    response = httpx2.Response(302, headers={"location": target})
    if followed:
        assert redirect_target(httpx2.URL(origin), response).host
        return
    with pytest.raises(FetchFailed, match=r"is refused"):
        redirect_target(httpx2.URL(origin), response)


def announced(num_bytes: int) -> Callable[..., None]:
    return http(GOOD, length=False, Content_Length=str(num_bytes))


LARGE_FILES: dict[str, Callable[[BadServer], Any]] = {
    "its length": lambda server: http(GOOD),
    "an announced length": lambda server: announced(10**12),
    "the hub's size": lambda server: http(
        "", "302 Found", Location="/cdn", X_Linked_ETag="a", X_Linked_Size=str(10**12)
    ),
    "no length": lambda server: http(GOOD, length=False),
    "no end": flood,
    "chunks": lambda server: raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000\r\n" + GOOD
    ),
    "a compressed body": lambda server: flood(server, b"\x1f\x8b", Content_Encoding="gzip"),
}


@pytest.mark.parametrize("large", LARGE_FILES)
def test_a_download_has_a_size_limit(large: str, config: FetchConfig, tmp_path: Path):
    with serve_badly() as server:
        server.behaviours = [LARGE_FILES[large](server)]
        url, limit = f"{server.address}/x.glb", glb_limit("x.glb", SMALL)
        budget, target = LocalBudget(100, 1.0), tmp_path / "x.glb"
        with pytest.raises(FetchFailed, match=r"--inspect\.max-file-bytes") as raised:
            download(url, target, glb_problem, config, budget, limit=limit)
        assert raised.value.kind == "too_large"
        assert f"the limit is {SMALL}" in raised.value.message
        assert len(server.paths) == 1
        assert server.sent < 32 << 20
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.fixture
def quick_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_SILENT_SECONDS", 0.1)
    waiting._watchers.clear()
    waiting._reports.clear()


@pytest.mark.usefixtures("quick_notices")
def test_a_long_wait_is_reported_once(config: FetchConfig, caplog: pytest.LogCaptureFixture):
    with serve_badly(silent) as server, caplog.at_level(logging.WARNING):
        with pytest.raises(FetchFailed):
            commit_of(server, config)
        with pytest.raises(FetchFailed):
            entries_of(server, config)
    assert caplog.messages == [f"waiting for {server.address} (0 s): the commit of main"]


@pytest.mark.usefixtures("quick_notices")
def test_progress_and_short_waits_are_not_reported(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING), waiting.waiting_for("http://a", "b") as wait:
        for _ in range(10):
            time.sleep(0.02)
            wait.progress()
    time.sleep(0.15)
    assert caplog.messages == []


@pytest.mark.usefixtures("quick_notices")
def test_waits_are_reported_after_a_fork_but_not_those_of_the_parent(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    with waiting.waiting_for("http://parent", "b"):
        process = os.fork()
        if not process:
            caplog.handler.setStream((tmp_path / "log").open("w"))
            with waiting.waiting_for("http://child", "b"):
                time.sleep(0.3)
            caplog.handler.flush()
            os._exit(0)
        os.waitpid(process, 0)
    text = (tmp_path / "log").read_text()
    assert "waiting for http://child" in text
    assert "http://parent" not in text
