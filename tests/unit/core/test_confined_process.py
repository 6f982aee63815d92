"""A confined process answers, or fails by a kind within its limits, whatever it is given."""

import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from core.confined.child_process import ChildProcess
from core.confined.confined_process import ConfinedFailure, ConfinedProcess
from tests.support.scripts import run_script

MEMORY = 100 << 20


@pytest.fixture(scope="module")
def process() -> Iterator[ConfinedProcess]:
    """Return a process that all tests share: none may leave it in a state that fails another."""
    with ConfinedProcess("the test") as process:
        yield process


def run(process: ConfinedProcess, name: str, *values, **options):
    limits = {"seconds": 30, "max_bytes": MEMORY, **options}
    return process.run(f"tests.support.confined_work:{name}", *values, **limits)


def failure(process: ConfinedProcess, name: str, *values, **options) -> ConfinedFailure:
    with pytest.raises(ConfinedFailure) as caught:
        run(process, name, *values, **options)
    return caught.value


def test_values_and_bytes_go_both_ways(process):
    assert run(process, "echo", 1, {"a": [None, "ü"]}) == ([1, {"a": [None, "ü"]}], b"")
    first = process.pid
    data = os.urandom(1 << 20)
    assert run(process, "echo", "x", data=data, max_answer=1 << 20) == (["x"], data[::-1])
    assert process.pid == first


FAILURES = {
    "sleep": ("timeout", "the test took more than 0.3 s"),
    "endless_native_call": ("timeout", "took more than"),
    "send_drops": ("timeout", "took more than"),
    "fill_memory": ("out_of_memory", "MiB; the limit is 100 MiB"),
    "allocate_at_once": ("out_of_memory", "the test: an allocation failed"),
    "crash": ("crash", "ended with signal SIGABRT during the test"),
    "exit_at_once": ("crash", "ended with exit code 0"),
    "kill_itself": ("killed", "signal SIGKILL"),
    "value_error": ("internal_error", "ValueError: an odd value"),
    "recursion": ("internal_error", "RecursionError"),
    "own_failure": ("empty", "nothing is there"),
    "missing_file": ("storage", "No such file"),
    "start_a_program": ("storage", "starts no programs"),
    "no_json": ("crash", "exit code 1"),
    "large_value": ("too_large", "the limits are 8388608 and 0"),
    "large_bytes": ("too_large", "the limits are 8388608 and 0"),
    "claim_a_size": ("too_large", "1152921504606846976 bytes of JSON"),
    "send_text": ("crash", "incomplete answer"),
    "send_deep_json": ("crash", "incomplete answer"),
    "send_a_list": ("crash", "incomplete answer"),
    "send_an_unknown_kind": ("crash", "incomplete answer"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_has_a_kind_and_costs_one_call(process, name: str, monkeypatch):
    monkeypatch.setattr("core.confined.child_process._END_SECONDS", 0.1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kind, message = FAILURES[name]
    error = failure(process, name, seconds=0.3 if kind == "timeout" else 30)
    assert error.kind == kind
    assert message in error.message
    assert "\n" not in error.message
    assert run(process, "echo", 1) == ([1], b"")
    # Kilobytes; what the child held was twice as much at least.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


def test_a_child_that_ends_at_its_start_is_no_error(monkeypatch):
    find = psutil.Process

    def find_zombie(pid: int) -> psutil.Process:
        while Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
            time.sleep(0.01)
        return find(pid)

    monkeypatch.setattr(psutil, "Process", find_zombie)
    child = ChildProcess("no.such.module", environment={})
    assert child.memory() == 0
    assert child.end_reason("it", "its start") == (
        "crash",
        "it ended with exit code 1 during its start",
    )
    child.kill()


def test_the_traceback_of_an_unexpected_error_is_kept(process):
    log = failure(process, "value_error").log_tail
    assert log is not None
    assert "confined_work.py" in log


def test_what_one_call_leaves_fails_no_other(process):
    """Memory that the first call holds is not the fault of the second."""
    process.close()
    run(process, "leave_memory", 60 << 20)
    first = process.pid
    assert run(process, "leave_memory", 60 << 20) == (None, b"")
    assert process.pid != first


def test_the_child_has_no_secrets_network_or_files(process, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    variables, _ = run(process, "environment")
    assert "secret" not in variables.values()
    assert failure(process, "write_a_file", str(tmp_path)).kind == "storage"
    assert process.pid is not None
    own, child = (Path(f"/proc/{pid}/ns/net").readlink() for pid in ("self", process.pid))
    if own != child:  # not where namespaces are forbidden
        with socket.create_server(("127.0.0.1", 0)) as server:
            assert failure(process, "connect", server.getsockname()[1]).kind == "storage"


def test_threads_share_a_process(process):
    results = []

    def work(number: int) -> None:
        results.append(run(process, "echo", number)[0])

    run(process, "echo", 0)  # a child ends with the thread that started it
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [[number] for number in range(8)]


PRELUDE = """
import os, resource, signal, sys, time
from core.confined.confined_process import ConfinedFailure, ConfinedProcess
process = ConfinedProcess("the test")
def run(name="echo", *values, seconds=20):
    return process.run(f"tests.support.confined_work:{name}", *values, seconds=seconds,
                       max_bytes=1 << 30)[0]
"""
ENVIRONMENTS = {
    "closed streams": "out = os.dup(1)\nfor fd in (0, 1, 2): os.close(fd)\n"
    "answer = run('echo', 7)\nos.dup2(out, 1)\nprint(answer)",
    "no folders": "import tempfile\nfolder = tempfile.mkdtemp()\nos.chdir(folder)\n"
    "os.rmdir(folder)\nos.environ['TMPDIR'] = 'gone'\nprint(run('echo', 7))",
    "few files": "resource.setrlimit(resource.RLIMIT_NOFILE, (4, 16))\n"
    "try:\n    run('echo', 1)\nexcept ConfinedFailure as error:\n"
    "    assert error.kind == 'no_start' and 'open files' in str(error)\n"
    "resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))\nprint(run('echo', 7))",
    "high file numbers": "resource.setrlimit(resource.RLIMIT_NOFILE, (2048, 4096))\n"
    "held = [os.open('/', 0) for _ in range(1500)]\nprint(run('echo', 7))",
    "after a fork": "run('echo', 1)\nchild = os.fork()\nif child == 0:\n"
    "    print(run('echo', 7), flush=True)\n    os._exit(0)\nos.waitpid(child, 0)\n"
    "assert run('echo', 2) == [2]",
    "a thread that ended": "import threading\n"
    "thread = threading.Thread(target=run, args=('echo', 1))\n"
    "thread.start()\nthread.join()\ntime.sleep(0.1)\nprint(run('echo', 7))",
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_odd_environments(name: str):
    result = run_script(PRELUDE + ENVIRONMENTS[name])
    assert result.stdout == "[7]\n", result.stderr


@pytest.mark.parametrize(("name", "values"), [("echo", [1]), ("endless_native_call", [])])
def test_a_killed_parent_leaves_no_child(name: str, values: list[int]):
    """Neither an idle child nor one that never returns to the interpreter."""
    code = (
        "run('echo', 1)\nprint(process.pid, flush=True)\nimport threading\n"
        "threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()\n"
        f"run('{name}', *{values})\ntime.sleep(60)"
    )
    child = int(run_script(PRELUDE + code).stdout)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.02)
