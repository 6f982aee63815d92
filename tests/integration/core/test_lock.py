"""The lock of one writer: its holder is named, and a dead holder releases it."""

import contextlib
import fcntl
import getpass
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

from core.errors import BadInput, WorkFailed
from core.lock import LockHolder, exclusive_lock, lock_holder
from core.storage import Storage
from tests.support.paths import REPOSITORY

HOLD = """
import sys, time
from core.lock import exclusive_lock
from core.storage import Storage
with exclusive_lock(Storage(sys.argv[1]), "lrm build"):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def bucket() -> Storage:
    return Storage(f"memory://{uuid.uuid4().hex}")


@pytest.fixture(params=["local", "object store"])
def root(request, tmp_path, bucket) -> Storage:
    return Storage(str(tmp_path / "root")) if request.param == "local" else bucket


def test_a_second_writer_is_refused_and_the_holder_is_named(root):
    message = r"`lrm build` by .+ on .+ \(process \d+, since 20.*--wait"
    with exclusive_lock(root, "lrm build"), pytest.raises(BadInput, match=message):
        acquire(root)
    acquire(root)


def test_locks_of_different_names_do_not_exclude_each_other(root):
    with exclusive_lock(root, "lrm build"), exclusive_lock(root, "lrm snapshot", name="snapshots"):
        pass


def acquire(root):
    with exclusive_lock(root, "lrm compact"):
        pass


def test_a_lock_is_released_after_an_error(root):
    with contextlib.suppress(ZeroDivisionError), exclusive_lock(root, "a"):
        raise ZeroDivisionError
    with exclusive_lock(root, "b") as check:
        check()


def test_a_waiting_writer_gets_the_lock_next(root):
    messages: list[str] = []
    order: list[str] = []

    def second():
        with exclusive_lock(root, "lrm compact", on_wait=messages.append, lease_seconds=2):
            order.append("second")

    with exclusive_lock(root, "lrm build"):
        thread = threading.Thread(target=second)
        thread.start()
        deadline = time.monotonic() + 20
        while not messages and time.monotonic() < deadline:
            time.sleep(0.02)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert len(messages) == 1
    assert "waiting for `lrm build`" in messages[0]


def test_a_killed_process_releases_its_lock(tmp_path):
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


def test_a_lease_of_a_killed_process_ends_at_once_on_its_machine(bucket):
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
        acquire(bucket)
    holder.kill()
    holder.wait()
    acquire(bucket)
    # The process id may belong to another process by now, or to one on another machine.
    write(expires=later, pid=os.getpid())
    acquire(bucket)
    write(expires=later, kernel="another machine")
    with pytest.raises(BadInput, match=f"process {holder.pid}"):
        acquire(bucket)


def test_a_lease_is_renewed_while_it_is_held(bucket):
    with exclusive_lock(bucket, "lrm build", lease_seconds=0.4) as check:
        time.sleep(1.0)
        check()
        with pytest.raises(BadInput), exclusive_lock(bucket, "lrm compact"):
            pass


def test_an_expired_lease_is_taken_over_and_its_holder_fails(bucket, monkeypatch):
    with exclusive_lock(bucket, "lrm build", lease_seconds=0.4) as check:
        # As on a suspended machine, the lease is not renewed.
        monkeypatch.setattr(Storage, "write", lambda *_: (_ for _ in ()).throw(OSError("asleep")))
        time.sleep(0.6)
        monkeypatch.undo()
        with exclusive_lock(bucket, "lrm compact", lease_seconds=5) as check_second:
            check_second()
            with pytest.raises(WorkFailed, match="could not be renewed"):
                check()
    with exclusive_lock(bucket, "lrm build"):
        assert len(bucket.list_files("locks/shards")) <= 2


def test_only_one_of_many_writers_takes_over_a_lease(bucket):
    acquired: list[int] = []
    refused: list[int] = []
    start, end = threading.Barrier(8), threading.Event()

    def acquire(number):
        start.wait()
        try:
            with exclusive_lock(bucket, f"writer {number}", lease_seconds=60):
                acquired.append(number)
                end.wait()
        except BadInput:
            refused.append(number)

    threads = [threading.Thread(target=acquire, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(acquired) + len(refused) < 8 and time.monotonic() < deadline:
        time.sleep(0.02)
    end.set()
    for thread in threads:
        thread.join()
    assert (len(acquired), len(refused)) == (1, 7)


def test_the_holder_is_known_while_it_holds_the_lock(root):
    assert lock_holder(root) is None
    with exclusive_lock(root, "lrm build"):
        values = lock_holder(root).to_dict()
        assert (values["command"], values["pid"]) == ("lrm build", os.getpid())
        assert values["user"] == getpass.getuser()
        assert set(values) == {"command", "user", "host", "pid", "since"}
        assert lock_holder(root, "snapshots") is None
    assert lock_holder(root) is None


def test_locks_of_other_versions_are_understood():
    holder = LockHolder.of_this_process("lrm build")
    values = json.loads(holder.dump())
    later = json.dumps(values | {"priority": 1}).encode()
    assert LockHolder.load(later) == holder
    del values["user"]
    earlier = LockHolder.load(json.dumps(values).encode())
    assert str(earlier).startswith(f"`lrm build` on {holder.host} (process {holder.pid}")


def test_a_killed_holder_holds_nothing(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    root, entry = Storage(str(tmp_path)), tmp_path / ".shards.lock"
    assert lock_holder(root).pid == holder.pid
    visible = json.loads(entry.read_text())["kernel"]
    # A process of another container is not visible, but its lock is.
    entry.write_text(json.dumps(json.loads(entry.read_text()) | {"kernel": "other"}))
    assert lock_holder(root).pid == holder.pid
    # It ends, but nothing waits for it, as in a container without an init process.
    entry.write_text(json.dumps(json.loads(entry.read_text()) | {"kernel": visible}))
    holder.kill()
    assert holder.stdout.read() == b""
    assert entry.read_text()
    # Its files are closed an instant before it counts as ended.
    deadline = time.monotonic() + 10
    while lock_holder(root) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    holder.wait()


def test_asking_for_the_holder_refuses_no_writer(tmp_path):
    """`lock_holder` locks a file whose entry is of another machine for an instant."""
    root = Storage(str(tmp_path))
    acquire(root)
    with open(tmp_path / ".shards.lock") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        release = threading.Timer(0.03, lambda: fcntl.flock(file, fcntl.LOCK_UN))
        release.start()
        acquire(root)
        release.join()


def test_a_lock_is_held_without_an_entry_on_a_full_disk(tmp_path):
    """The limit on the size of a file refuses the entry as a full disk does."""
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    root = Storage(str(tmp_path))
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with exclusive_lock(root, "lrm compact"), pytest.raises(BadInput, match="another command"):
            acquire(root)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        signal.signal(signal.SIGXFSZ, before)
    acquire(root)


def _put_folder(path):
    (path / "below").mkdir(parents=True)


@pytest.mark.parametrize("name", ["shards", "snapshots"])
@pytest.mark.parametrize(
    "put",
    [_put_folder, os.mkfifo, lambda path: path.symlink_to(path), lambda path: path.symlink_to("/")],
    ids=["folder", "pipe", "loop", "link to a folder"],
)
def test_a_lock_that_is_not_a_file_is_named(tmp_path, name, put):
    put(tmp_path / f".{name}.lock")
    root = Storage(str(tmp_path))
    assert lock_holder(root, name) is None
    message = re.escape(f"{tmp_path}/.{name}.lock: this lock is not a file") + ".* `rm -rf "
    with pytest.raises(BadInput, match=message), exclusive_lock(root, "lrm build", name=name):
        pass


WRONG_ENTRIES = {
    "empty": b"",
    "cut": b'{"command": "lrm bui',
    "zeros": bytes(300),
    "not text": b"\xff\xfe",
    "a list": b"[1, 2]",
    "a number": b"5",
    "nested": b"[" * 100_000,
    "another object": b'{"format": 2}',
    "a text as pid": {"pid": "1"},
    "no pid": {"pid": None},
    "a list as host": {"host": []},
    "a text as expiry": {"expires": "soon"},
    "an endless lease": {"expires": float("inf")},
    "no expiry": {"expires": float("nan")},
    "a lease of years": {"expires": 1e12},
}


@pytest.fixture(params=WRONG_ENTRIES.values(), ids=WRONG_ENTRIES.keys())
def wrong_entry(request) -> bytes:
    if isinstance(request.param, bytes):
        return request.param
    valid = json.loads(LockHolder.of_this_process("lrm build").dump())
    return json.dumps(valid | {"expires": time.time() + 60} | request.param).encode()


def test_a_damaged_entry_of_a_local_lock_holds_nothing(tmp_path, wrong_entry):
    root = Storage(str(tmp_path))
    (tmp_path / ".shards.lock").write_bytes(wrong_entry)
    assert lock_holder(root) is None
    with exclusive_lock(root, "lrm build"):
        assert lock_holder(root).pid == os.getpid()


def test_a_damaged_lease_is_named_and_not_taken_over(bucket, wrong_entry):
    """Its holder may still work; another command would write at the same time."""
    bucket.write("locks/shards/000000000003.json", wrong_entry)
    assert lock_holder(bucket) is None
    with pytest.raises(BadInput, match=r"locks/shards/000000000003\.json: .* delete this object"):
        acquire(bucket)
    bucket.delete("locks/shards/000000000003.json")
    acquire(bucket)


def test_a_file_beside_the_leases_is_ignored(bucket):
    for name in ("notes.txt", "1.json", "zzz.json"):
        bucket.write(f"locks/shards/{name}", b"{}")
    with exclusive_lock(bucket, "lrm build"):
        assert lock_holder(bucket).pid == os.getpid()
        with pytest.raises(BadInput, match="lrm build"):
            acquire(bucket)
    acquire(bucket)
