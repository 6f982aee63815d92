"""One writer at a time: who holds the lock is named, and a dead holder holds nothing."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

from core.errors import BadInput, WorkFailed
from core.lock import exclusive_lock
from core.storage import Storage
from tests.support.paths import REPOSITORY

HOLD = """
import sys, time
from core.lock import exclusive
from core.storage import Storage
with exclusive(Storage(sys.argv[1]), "lrm build"):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def bucket() -> Storage:
    return Storage(f"memory://{uuid.uuid4().hex}")


@pytest.fixture(params=["local", "object store"])
def root(request, tmp_path, bucket) -> Storage:
    return Storage(str(tmp_path / "root")) if request.param == "local" else bucket


def test_the_second_is_refused_and_told_who_is_first(root):
    named = r"`lrm build` on .* \(process \d+, since 20.*--wait"
    with exclusive_lock(root, "lrm build"), pytest.raises(BadInput, match=named):
        take(root)
    take(root)


def test_locks_of_other_things_do_not_exclude_each_other(root):
    with exclusive_lock(root, "lrm build"), exclusive_lock(root, "lrm snapshot", name="snapshots"):
        pass


def take(root):
    with exclusive_lock(root, "lrm compact"):
        pass


def test_it_is_free_after_an_error(root):
    with contextlib.suppress(ZeroDivisionError), exclusive_lock(root, "a"):
        raise ZeroDivisionError
    with exclusive_lock(root, "b") as check:
        check()


def test_whoever_waits_comes_next(root):
    said: list[str] = []
    order: list[str] = []

    def second():
        with exclusive_lock(root, "lrm compact", on_wait=said.append, lease_seconds=2):
            order.append("second")

    with exclusive_lock(root, "lrm build"):
        thread = threading.Thread(target=second)
        thread.start()
        deadline = time.monotonic() + 20
        while not said and time.monotonic() < deadline:
            time.sleep(0.02)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert len(said) == 1
    assert "waiting for `lrm build`" in said[0]


def test_a_killed_process_holds_nothing(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    root = Storage(str(tmp_path))
    with pytest.raises(BadInput, match=f"process {holder.pid}"), exclusive_lock(root, "lrm build"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with exclusive_lock(root, "lrm build"):
        pass


def test_a_lease_of_a_killed_process_counts_for_nothing_where_that_was(bucket):
    holder = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    started = Path(f"/proc/{holder.pid}/stat").read_text().split()[21]

    def write(**changes):
        with exclusive_lock(bucket, "lrm build"):
            path = f"locks/shards/{bucket.list_files('locks/shards')[-1]}"
            lease = json.loads(bucket.read(path)) | {"pid": holder.pid, "started": started}
        bucket.write(path, json.dumps(lease | changes).encode())

    later = time.time() + 100
    write(expires=later)
    with pytest.raises(BadInput, match=f"process {holder.pid}"):
        take(bucket)
    holder.kill()
    holder.wait()
    take(bucket)
    # Its id is another's by now, or of another machine's process.
    write(expires=later, pid=os.getpid())
    take(bucket)
    write(expires=later, kernel="another machine")
    with pytest.raises(BadInput, match=f"process {holder.pid}"):
        take(bucket)


def test_a_lease_is_renewed_while_it_is_held(bucket):
    with exclusive_lock(bucket, "lrm build", lease_seconds=0.4) as check:
        time.sleep(1.0)
        check()
        with pytest.raises(BadInput), exclusive_lock(bucket, "lrm compact"):
            pass


def test_a_lease_that_ran_out_is_taken_over_and_its_holder_learns_it(bucket, monkeypatch):
    with exclusive_lock(bucket, "lrm build", lease_seconds=0.4) as check:
        # A machine that sleeps: nothing is renewed.
        monkeypatch.setattr(Storage, "write", lambda *_: (_ for _ in ()).throw(OSError("asleep")))
        time.sleep(0.6)
        monkeypatch.undo()
        with exclusive_lock(bucket, "lrm compact", lease_seconds=5) as mine:
            mine()
            with pytest.raises(WorkFailed, match="could not be renewed"):
                check()
    with exclusive_lock(bucket, "lrm build"):
        assert len(bucket.list_files("locks/shards")) <= 2


def test_of_many_that_take_over_one_succeeds(bucket):
    held: list[int] = []
    refused: list[int] = []
    start, end = threading.Barrier(8), threading.Event()

    def take(number):
        start.wait()
        try:
            with exclusive_lock(bucket, f"taker {number}", lease_seconds=60):
                held.append(number)
                end.wait()
        except BadInput:
            refused.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(held) + len(refused) < 8 and time.monotonic() < deadline:
        time.sleep(0.02)
    end.set()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 7)
