"""Repeating what failed for a reason that lies in the machine or the storage."""

import time

from core.failures import FailureKind

__all__ = ["pause"]

_PAUSE_SECONDS = 5.0
"""Before the first repetition; before the second four times as long."""


def pause(kind: FailureKind, attempt: int) -> None:
    """Wait before the next attempt: free space and connections take their time to come back."""
    # Whatever killed a child has got the memory that it needed.
    if kind is not FailureKind.KILLED:
        time.sleep(_PAUSE_SECONDS * attempt**2)
