"""Downloads from a faulty hub: the file is correct, or the download fails with its own kind."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from glb.container import glb_problem
from pipelines.transfers.budget import LocalBudget
from pipelines.transfers.download import download
from pipelines.transfers.fetch_config import FetchConfig
from pipelines.transfers.outcome import FetchedFile, FetchFailed, file_sha256
from tests.support.fake_glbs import GOOD, OTHER
from tests.support.hub import Fault, Hub, serve_hub
from tests.support.paths import REPOSITORY

PATH = "glbs/000-000/model.glb"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    file = tmp_path / "repository" / PATH
    file.parent.mkdir(parents=True)
    file.write_bytes(GOOD)
    with serve_hub(tmp_path / "repository") as server:
        yield server


@pytest.fixture
def config(tmp_path: Path) -> FetchConfig:
    """Return limits that are reached within seconds, on a busy machine too."""
    return FetchConfig(
        connect_seconds=5,
        stall_seconds=2,
        total_seconds=60,
        attempts=3,
        backoff_seconds=0.02,
        rate_limit_wait_seconds=30,
        partial_folder=str(tmp_path / "parts"),
    )


@pytest.fixture
def fetch(hub: Hub, config: FetchConfig, tmp_path: Path) -> Callable[..., FetchedFile]:
    def run(path: str = PATH, **changes) -> FetchedFile:
        settings = config.model_copy(update=changes)
        budget = LocalBudget(1000, 1.0)
        target = tmp_path / "target.glb"
        return download(hub.url(path), target, glb_problem, settings, budget, "secret")

    return run


def failure(fetch: Callable[..., FetchedFile], tmp_path: Path, **changes) -> FetchFailed:
    with pytest.raises(FetchFailed) as raised:
        fetch(**changes)
    assert not (tmp_path / "target.glb").exists()
    return raised.value


def test_a_redirect_is_followed_without_sending_the_token(hub, fetch, tmp_path):
    fetched = fetch()
    assert (tmp_path / "target.glb").read_bytes() == GOOD
    assert fetched.num_bytes == len(GOOD)
    assert fetched.sha256 == file_sha256(tmp_path / "target.glb")
    assert hub.tokens == []
    assert list((tmp_path / "parts").iterdir()) == []


def test_a_file_is_downloaded_without_a_redirect(hub, fetch):
    hub.redirect = False
    assert fetch().num_bytes == len(GOOD)


@pytest.mark.parametrize("redirect", [True, False])
def test_a_cut_connection_is_resumed_at_the_next_byte(hub, fetch, tmp_path, redirect):
    hub.redirect = redirect
    hub.faults[PATH] = [Fault(cut_after=500_000), Fault(cut_after=700_000)]
    fetch()
    assert (tmp_path / "target.glb").read_bytes() == GOOD
    assert hub.ranges == ["", "bytes=500000-", "bytes=1200000-"]


@pytest.mark.parametrize("redirect", [True, False])
def test_a_server_that_ignores_ranges_sends_the_whole_file(hub, fetch, tmp_path, redirect):
    hub.redirect, hub.ignores_ranges = redirect, True
    hub.faults[PATH] = [Fault(cut_after=500_000)]
    fetch()
    assert (tmp_path / "target.glb").read_bytes() == GOOD
    assert hub.ranges == ["", "bytes=500000-"]


@pytest.mark.parametrize("redirect", [True, False])
def test_a_range_that_does_not_continue_the_part_is_not_used(hub, fetch, tmp_path, redirect):
    hub.redirect = redirect
    other = {"Content-Range": f"bytes 400000-{len(GOOD) - 1}/{len(GOOD)}"}
    hub.faults[PATH] = [Fault(cut_after=500_000), Fault(headers=other)]
    fetch()
    assert (tmp_path / "target.glb").read_bytes() == GOOD
    assert hub.ranges == ["", "bytes=500000-", ""]


def test_redirects_have_a_limit(hub, fetch, tmp_path):
    hub.faults[PATH] = [Fault(status=302, headers={"Location": "?again"}) for _ in range(20)]
    failed = failure(fetch, tmp_path)
    assert failed.kind == "download"
    assert "more than 8 redirects" in failed.message
    assert len(hub.requests) == 8


def test_cuts_after_progress_are_not_counted_as_attempts(hub, fetch):
    hub.faults[PATH] = [Fault(cut_after=300_000) for _ in range(6)]
    fetch()
    assert len(hub.ranges) == 7


def test_attempts_without_progress_fail_and_keep_the_partial_file(hub, fetch, tmp_path):
    hub.faults[PATH] = [Fault(cut_after=500_000)] + [Fault(cut_after=0)] * 9
    failed = failure(fetch, tmp_path)
    assert failed.kind == "download"
    assert "500000 bytes are kept" in failed.message
    assert len(hub.ranges) == 3
    # The next attempt continues after these bytes.
    hub.faults[PATH] = []
    fetch()
    assert hub.ranges[3:] == ["bytes=500000-"]
    assert (tmp_path / "target.glb").read_bytes() == GOOD


CHILD = """
import sys
from pathlib import Path
from pipelines.transfers.budget import LocalBudget
from pipelines.transfers.download import download
from glb.container import glb_problem
from pipelines.transfers.fetch_config import FetchConfig
url, target, parts = sys.argv[1:]
download(url, Path(target), glb_problem, FetchConfig(partial_folder=parts), LocalBudget(100, 1.0))
"""


def test_a_partial_download_outlives_its_process(hub, fetch, tmp_path):
    hub.faults[PATH] = [Fault(pause_at=1_000_000, pause_seconds=60)]
    words = [hub.url(PATH), str(tmp_path / "target.glb"), str(tmp_path / "parts")]
    child = subprocess.Popen([sys.executable, "-c", CHILD, *words], cwd=REPOSITORY)
    try:
        end = time.monotonic() + 60
        while sum(p.stat().st_size for p in tmp_path.glob("parts/*.part")) < 900_000:
            assert time.monotonic() < end
            assert child.poll() is None
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not (tmp_path / "target.glb").exists()
    fetch()
    assert int(hub.ranges[-1].removeprefix("bytes=").rstrip("-")) >= 900_000
    assert (tmp_path / "target.glb").read_bytes() == GOOD


def test_a_partial_file_of_other_content_is_not_used(hub, fetch, tmp_path):
    hub.faults[PATH] = [Fault(cut_after=500_000)] + [Fault(cut_after=0)] * 2
    failure(fetch, tmp_path)
    (tmp_path / "repository" / PATH).write_bytes(OTHER)
    fetch()
    assert (tmp_path / "target.glb").read_bytes() == OTHER
    assert hub.ranges[-1] == ""


@pytest.mark.parametrize("redirect", [True, False])
def test_content_that_changes_during_the_download(hub, fetch, tmp_path, redirect):
    hub.redirect = redirect
    hub.faults[PATH] = [Fault(cut_after=500_000), Fault(replace=OTHER)]
    failed = failure(fetch, tmp_path)
    assert failed.kind == "changed"
    assert list(tmp_path.glob("parts/*")) == []
    fetch()
    assert (tmp_path / "target.glb").read_bytes() == OTHER


@pytest.mark.parametrize("data", [OTHER, GOOD[:-1000], GOOD + b"more", b"<html>Sign in</html>"])
@pytest.mark.parametrize("redirect", [True, False])
def test_wrong_bytes(hub, fetch, tmp_path, data, redirect):
    hub.redirect = redirect
    hub.faults[PATH] = [Fault(data=data), Fault(data=data)]
    fetch()
    assert (tmp_path / "target.glb").read_bytes() == GOOD
    (tmp_path / "target.glb").unlink()
    hub.faults[PATH] = [Fault(data=data) for _ in range(3)]
    failed = failure(fetch, tmp_path)
    assert failed.kind == "corrupt"
    assert "wrong bytes (attempts: 3)" in failed.message
    assert list(tmp_path.glob("parts/*")) == []


def test_a_wrong_content_length_with_the_right_bytes_is_accepted(hub, fetch, tmp_path):
    hub.redirect = False
    wrong_length = {"Content-Length": str(len(GOOD) + 5)}
    hub.faults[PATH] = [Fault(headers=wrong_length, cut_after=len(GOOD)) for _ in range(9)]
    fetch()
    assert (tmp_path / "target.glb").read_bytes() == GOOD


@pytest.mark.parametrize("problem", ["size", "magic", "version", "empty"])
def test_a_file_malformed_at_the_source_is_not_requested_again(hub, fetch, tmp_path, problem):
    broken = {
        "size": GOOD[:-8],
        "magic": b"GLTF" + GOOD[4:],
        "version": GOOD[:4] + b"\x01" + GOOD[5:],
        "empty": b"",
    }[problem]
    (tmp_path / "repository" / PATH).write_bytes(broken)
    assert failure(fetch, tmp_path).kind == "malformed"
    assert len(hub.requests) == 1


def test_a_missing_file_is_not_requested_again(hub, fetch, tmp_path):
    assert failure(fetch, tmp_path, path="glbs/000-000/none.glb").kind == "missing"
    assert len(hub.requests) == 1


def test_a_404_of_the_revision_is_no_missing_file(hub, fetch, tmp_path):
    hub.faults[PATH] = [Fault(status=404, headers={"X-Error-Code": "RevisionNotFound"})]
    assert failure(fetch, tmp_path).kind == "download"


@pytest.mark.parametrize("status", [401, 403])
def test_a_denied_request_names_the_token(hub, fetch, tmp_path, status):
    hub.faults[PATH] = [Fault(status=status)]
    failed = failure(fetch, tmp_path)
    assert failed.kind == "download"
    assert "HF_TOKEN" in failed.message
    assert len(hub.requests) == 1


@pytest.mark.parametrize("status", [500, 502, 504, 408])
def test_server_errors_are_retried(hub, fetch, status):
    hub.faults[PATH] = [Fault(status=status), Fault(status=status)]
    fetch()
    assert len(hub.requests) == 3


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_failing_cdn_address_is_requested_again_from_the_hub(hub, fetch, status):
    hub.faults[PATH] = [Fault(cdn_status=status), Fault(cdn_status=status)]
    fetch()
    assert len(hub.requests) == 3


def test_repeated_server_errors_fail_after_the_last_attempt(hub, fetch, tmp_path):
    hub.faults[PATH] = [Fault(status=500) for _ in range(9)]
    failed = failure(fetch, tmp_path)
    assert failed.kind == "download"
    assert "HTTP 500 (attempts: 3)" in failed.message
    assert len(hub.requests) == 3


def test_a_slow_body_ends_at_the_total_limit(hub, fetch, tmp_path):
    hub.faults[PATH] = [Fault(seconds_per_byte=0.05)]
    started = time.monotonic()
    failed = failure(fetch, tmp_path, total_seconds=1.0)
    assert time.monotonic() - started < 15
    assert failed.kind == "download"
    assert "not complete after 1 s" in failed.message


def test_slow_headers_end_at_the_total_limit(hub, fetch, tmp_path):
    hub.faults[PATH] = [Fault(seconds_per_header_byte=0.05)]
    started = time.monotonic()
    assert failure(fetch, tmp_path, total_seconds=1.0).kind == "download"
    assert time.monotonic() - started < 15


def test_a_stalled_connection_is_closed_and_retried(hub, fetch):
    hub.faults[PATH] = [Fault(pause_seconds=60)]
    started = time.monotonic()
    fetch()
    assert 2 < time.monotonic() - started < 30
    assert len(hub.requests) == 2


def test_an_unreachable_server_fails_as_download(config, tmp_path):
    with pytest.raises(FetchFailed, match="ConnectError") as raised:
        url = "http://127.0.0.1:1/model.glb"
        download(url, tmp_path / "x", glb_problem, config, LocalBudget(1000, 1.0))
    assert raised.value.kind == "download"


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "1"},
        {
            "RateLimit": '"resolvers";r=0;t=1',
            "RateLimit-Policy": '"fixed window";"resolvers";q=9;w=1',
        },
        {"RateLimit-Remaining": "0", "RateLimit-Reset": "1"},
    ],
)
def test_the_stated_wait_of_a_429_is_respected(hub, fetch, headers):
    hub.faults[PATH] = [Fault(status=429, headers=headers) for _ in range(2)]
    fetch()
    first, second, third = hub.request_times
    assert second - first > 0.95
    assert third - second > 0.95


def test_retry_after_may_be_a_date(hub, fetch):
    retry_after = format_datetime(datetime.now(UTC) + timedelta(seconds=4), usegmt=True)
    hub.faults[PATH] = [Fault(status=503, headers={"Retry-After": retry_after})]
    fetch()
    assert hub.request_times[1] - hub.request_times[0] > 1.5


def test_a_429_without_a_stated_wait_is_retried(hub, fetch, tmp_path):
    hub.faults[PATH] = [Fault(status=429) for _ in range(2)]
    fetch()
    hub.faults[PATH] = [Fault(status=429) for _ in range(9)]
    (tmp_path / "target.glb").unlink()
    assert failure(fetch, tmp_path).kind == "download"
    assert len(hub.requests) == 6


def test_a_stated_wait_over_the_limit_fails(hub, fetch, tmp_path):
    hub.faults[PATH] = [Fault(status=429, headers={"Retry-After": "86400"})]
    failed = failure(fetch, tmp_path)
    assert failed.kind == "download"
    assert "--fetch.rate-limit-wait-seconds" in failed.message


def test_an_unusable_partial_folder_fails_as_storage(hub, config, tmp_path):
    (tmp_path / "file").write_text("")
    full = config.model_copy(update={"partial_folder": str(tmp_path / "file" / "parts")})
    with pytest.raises(FetchFailed) as raised:
        download(hub.url(PATH), tmp_path / "x", glb_problem, full, LocalBudget(1000, 1.0))
    assert raised.value.kind == "storage"


def test_two_downloads_of_one_file_do_not_share_a_partial_file(hub, fetch, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    hub.faults[PATH] = [
        Fault(cut_after=500_000, pause_seconds=0.2),
        Fault(cut_after=500_000, pause_seconds=0.2),
    ]
    with ThreadPoolExecutor(2) as pool:
        digests = list(pool.map(lambda _: fetch().sha256, range(2)))
    assert digests == [file_sha256(tmp_path / "target.glb")] * 2
    assert list(tmp_path.glob("parts/*")) == []
