"""Functions for confined processes: good ones, and what a file that took one over may do."""

import contextlib
import json
import os
import signal
import socket
import stat
import struct
import subprocess
import time
from pathlib import Path
from typing import Any, NoReturn

from core.failures import FailureKind, StageFailed

__all__: list[str] = []

_HELD: list[bytearray] = []


def echo(*values: Any) -> tuple[list[Any], bytes]:
    *others, last = values
    is_data = isinstance(last, memoryview)
    return list(others if is_data else values), bytes(last)[::-1] if is_data else b""


def environment() -> tuple[dict[str, str], bytes]:
    return dict(os.environ), b""


def sleep() -> NoReturn:
    while True:
        time.sleep(1)


def endless_native_call() -> NoReturn:
    """Never return to the interpreter, and keep its lock."""
    pow(3, 1 << (1 << 24))
    raise AssertionError


def fill_memory() -> NoReturn:
    while True:
        _HELD.append(bytearray(b"x" * (16 << 20)))
        time.sleep(0.02)


def allocate_at_once() -> NoReturn:
    _HELD.append(bytearray(1 << 40))
    raise AssertionError


def leave_memory(size: int) -> tuple[None, bytes]:
    block = bytearray(size)
    for page in range(0, size, 4096):
        block[page] = 1
    _HELD.append(block)
    time.sleep(0.1)
    return None, b""


def crash() -> NoReturn:
    os.abort()


def exit_at_once() -> NoReturn:
    os._exit(0)


def kill_itself() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def value_error() -> NoReturn:
    raise ValueError("an odd\nvalue")


def recursion() -> NoReturn:
    recursion()


def own_failure() -> NoReturn:
    raise StageFailed(FailureKind.EMPTY, "nothing is there")


def missing_file() -> NoReturn:
    open("/does/not/exist")
    raise AssertionError


def start_a_program() -> NoReturn:
    subprocess.run(["/bin/true"])
    raise AssertionError


def write_a_file(folder: str) -> NoReturn:
    with open(Path(folder) / "made", "wb") as file:
        file.write(b"x")
    raise AssertionError


def connect(port: int) -> NoReturn:
    socket.create_connection(("127.0.0.1", port), timeout=5)
    raise AssertionError


def no_json() -> tuple[object, bytes]:
    return object(), b""


def large_value() -> tuple[str, bytes]:
    return "x" * (9 << 20), b""


def large_bytes() -> tuple[None, bytes]:
    return None, bytes(1 << 20)


def _send(data: bytes) -> None:
    """Send bytes to the parent past the protocol."""
    for number in range(16):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                os.write(number, data)
                return


def _send_answer(text: bytes) -> NoReturn:
    _send(struct.pack("!QQ", len(text), 0) + text)
    sleep()


def claim_a_size() -> NoReturn:
    _send(struct.pack("!QQ", 1 << 60, 1 << 60))
    sleep()


def send_text() -> NoReturn:
    _send_answer(b"{no JSON")


def send_deep_json() -> NoReturn:
    _send_answer(b"[" * 1_000_000)


def send_a_list() -> NoReturn:
    _send_answer(b'["value"]')


def send_an_unknown_kind() -> NoReturn:
    _send_answer(json.dumps({"kind": "odd", "message": "odd"}).encode())


def send_drops() -> NoReturn:
    _send(struct.pack("!QQ", 1 << 20, 0))
    while True:
        _send(b" ")
        time.sleep(0.01)
