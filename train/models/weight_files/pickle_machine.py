"""Pickles read without running them: no instruction calls a function that the pickle names.

Each instruction makes a value that is about as large as its bytes. The files that are read so state
which objects they may name (`PickleMachine.named`) and how these are made.
"""

import io
import pickletools
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "INSTRUCTIONS",
    "MAX_PICKLE_BYTES",
    "Constructor",
    "InvalidWeights",
    "PickleMachine",
    "is_count",
    "plain_dict",
]

MAX_PICKLE_BYTES = 4_000_000
"""Largest pickle in bytes. The names and shapes of 1,000 tensors need about 200,000."""
_MAX_INSTRUCTIONS = 500_000
"""Most instructions of a pickle; a tensor needs about 45."""

_MAX_ARGUMENTS = 16
"""Most arguments of a call; a tensor has 7."""
_SIZED = (list, tuple, dict)


class InvalidWeights(ValueError):
    """A weight file that is damaged, holds more than tensors, or states sizes it does not have."""


@dataclass(frozen=True)
class Constructor:
    """A function whose result the machine makes itself."""

    make: Callable[..., Any]


class _Mark:
    """The marker that opens a tuple, or the items of a list or dictionary."""


class PickleMachine:
    """A stack machine for instructions that make plain values, and objects that it knows."""

    named: Mapping[str, Any] = {}
    """Objects that a pickle may name, and what they stand for: a value or a `Constructor`."""
    contents = "values"
    """What a file of this kind holds, for messages."""
    remedy = "give another file"
    """What to do about other objects, for messages."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._num_copied = 0
        """Number of items that calls have copied: their arguments, and what these contain."""

    def run(self, stream: io.BytesIO) -> Any:
        """Run the instructions up to the end of the pickle; return its value.

        Raises InvalidWeights.
        """
        try:
            return self._run(stream)
        except InvalidWeights:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, struct.error):
            raise InvalidWeights("its pickle is damaged") from None

    def build(self, target: Any, attributes: Any) -> None:
        """Set the attributes of an object. Raises InvalidWeights for any that is not known."""
        raise InvalidWeights("its pickle sets attributes of a plain value")

    def persistent(self, identifier: Any) -> Any:
        """Return the object outside of the pickle with an identifier. Raises InvalidWeights."""
        raise InvalidWeights("its pickle refers to objects outside of it")

    def _run(self, stream: io.BytesIO) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > _MAX_INSTRUCTIONS:
                raise InvalidWeights(f"its pickle has more than {_MAX_INSTRUCTIONS} instructions")
            if opcode.name == "STOP":
                return self._stack.pop()
            instruction = INSTRUCTIONS.get(opcode.name)
            if instruction is None:
                raise InvalidWeights(f"its pickle has the instruction {opcode.name}")
            instruction(self, argument)
        raise InvalidWeights("its pickle is cut off")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _tuple(self, size: int) -> None:
        items = tuple(self._stack[-size:])
        del self._stack[-size:]
        self._stack.append(items)

    def _items(self) -> list[Any]:
        """Pop the items above the newest mark, and the mark."""
        items = []
        while (item := self._stack.pop()) is not _Mark:
            items.append(item)
        return items[::-1]

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise InvalidWeights("its pickle appends to something that is no list")
        target.extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise InvalidWeights("its pickle sets items of something that is no dictionary")
        target |= plain_dict(zip(items[::2], items[1::2], strict=True))

    def _global(self, argument: str) -> None:
        name = argument.replace(" ", ".")
        if name not in self.named:
            raise InvalidWeights(
                f"it holds Python objects besides {self.contents} ({name[:80]}), which are not "
                f"loaded because that could run code; {self.remedy}"
            )
        self._stack.append(self.named[name])

    def _reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Constructor) or not isinstance(arguments, tuple):
            raise InvalidWeights(f"its pickle calls something that makes no {self.contents}")
        self._num_copied += sum(
            len(one) for one in (arguments, *arguments[:_MAX_ARGUMENTS]) if isinstance(one, _SIZED)
        )
        if self._num_copied > _MAX_INSTRUCTIONS or len(arguments) > _MAX_ARGUMENTS:
            raise InvalidWeights("its pickle copies the same values again and again")
        self._stack.append(function.make(*arguments))

    def _build(self, _: Any) -> None:
        attributes = self._stack.pop()
        self.build(self._stack[-1], attributes)

    def _persistent(self, _: Any) -> None:
        self._stack.append(self.persistent(self._stack.pop()))


def plain_dict(pairs: Iterable[Any] = ()) -> dict[Any, Any]:
    """Return a dictionary of pairs. Raises InvalidWeights for keys that are not plain."""
    values = {}
    for key, value in pairs:
        # The hash of nested tuples may take time without limit.
        if not isinstance(key, str | int):
            raise InvalidWeights("its pickle has a dictionary with keys that are no names")
        values[key] = value
    return values


def is_count(number: Any) -> bool:
    """Return whether a value is an integer that can be a size or a position."""
    return type(number) is int and 0 <= number < 2**62


_CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "MARK": lambda: _Mark,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}


def _pusher(make: Callable[[], Any]) -> Callable[[PickleMachine, Any], None]:
    return lambda machine, _: machine._push(make())


_VALUES = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"),
    *("INT", "BINSTRING"),  # of the protocols of Python 2: also true and false, and bytes
)
INSTRUCTIONS: Mapping[str, Callable[[PickleMachine, Any], None]] = {
    **{name: _pusher(make) for name, make in _CONSTANTS.items()},
    **dict.fromkeys(_VALUES, PickleMachine._push),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), PickleMachine._put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), PickleMachine._get),
    "PROTO": lambda _machine, _: None,
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "TUPLE": lambda machine, _: machine._push(tuple(machine._items())),
    "APPEND": lambda machine, _: machine._append([machine._stack.pop()]),
    "APPENDS": lambda machine, _: machine._append(machine._items()),
    "SETITEM": lambda machine, _: machine._set([machine._stack.pop(-2), machine._stack.pop()]),
    "SETITEMS": lambda machine, _: machine._set(machine._items()),
    "GLOBAL": PickleMachine._global,
    "REDUCE": PickleMachine._reduce,
    "BUILD": PickleMachine._build,
    "BINPERSID": PickleMachine._persistent,
}
"""The instructions that are known, by their name in `pickletools`."""
