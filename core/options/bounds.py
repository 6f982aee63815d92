"""Upper bounds of numbers that are given as plain options."""

import argparse
from collections.abc import Callable

__all__ = ["at_most"]


def at_most(kind: type[int] | type[float], limit: float) -> Callable[[str], float]:
    """Return the type of an option, for `add_argument`: a number of at most `limit`.

    Its sign is not checked. A number that is not finite is refused.
    """

    def read(text: str) -> float:
        number = kind(text)
        if not abs(number) <= limit:
            raise argparse.ArgumentTypeError(f"must be at most {limit:,}, got {text}")
        return number

    read.__name__ = kind.__name__  # argparse shows it
    read.__annotations__["return"] = kind  # the help shows it
    return read
