"""Messages between a process and its confined child: a JSON value and bytes, never a pickle.

A message is a header with two sizes, the JSON text, and the bytes. The reader limits both sizes
before it reads them: a child that a file has taken over cannot fill its parent's memory.
"""

import json
import socket
import struct
from collections.abc import Callable
from typing import Any

__all__ = ["TooLarge", "receive", "send"]

_HEADER = struct.Struct("!QQ")


class TooLarge(Exception):
    """A message is larger than its reader allows."""


def send(channel: socket.socket, value: Any, data: bytes | bytearray | memoryview = b"") -> None:
    """Send a message. Raises OSError if the other end is closed or reads too slowly."""
    text = json.dumps(value).encode()
    channel.sendall(_HEADER.pack(len(text), len(data)) + text)
    channel.sendall(data)


def receive(
    channel: socket.socket, wait: Callable[[], None], max_json: int, max_data: int
) -> tuple[Any, bytearray]:
    """Return the value and the bytes of the next message.

    `wait` returns when there is something to read. Raises EOFError if the other end is closed or
    sends no valid message, and TooLarge.
    """
    text_size, data_size = _HEADER.unpack(_read(channel, wait, _HEADER.size))
    if text_size > max_json or data_size > max_data:
        sizes = f"{text_size} bytes of JSON and {data_size} others"
        raise TooLarge(f"{sizes}; the limits are {max_json} and {max_data}")
    text = _read(channel, wait, text_size)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise EOFError("the message is not JSON") from None
    return value, _read(channel, wait, data_size)


def _read(channel: socket.socket, wait: Callable[[], None], size: int) -> bytearray:
    """Return exactly `size` bytes. Raises EOFError if the other end is closed before."""
    buffer = bytearray(size)
    rest = memoryview(buffer)
    while rest:
        wait()
        try:
            count = channel.recv_into(rest)
        except ConnectionError:
            count = 0
        if not count:
            raise EOFError("the other end of the channel is closed")
        rest = rest[count:]
    return buffer
