"""The failures of a build, and the objects that it leaves undone because of its environment."""

from collections import Counter

from core.errors import WorkFailed
from core.failures import FailureKind, Fault
from core.quantities import counted
from core.safe_text import printable

__all__ = ["FailureCounts"]

_MESSAGE = 200
"""Characters of a message that the line shows."""


class FailureCounts:
    """The failures of a build by kind, with the first message of each kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._messages: dict[str, str] = {}

    def add(self, kind: str, message: str) -> None:
        """Count the failure of one object."""
        self.counts[kind] += 1
        self._messages.setdefault(kind, message)

    def undone(self) -> str:
        """Return a line if the machine, the network or the storage left objects undone, else "".

        Their files may be good, so the next build tries them again: a job that only succeeds once
        its work is done must fail. That includes `killed` and `worker_lost`: an object that needs
        too much memory itself is `out_of_memory`, unless its node has less than the limit.
        """
        kinds = [
            kind
            for kind in sorted(FailureKind, key=self.counts.__getitem__, reverse=True)
            if kind.fault is Fault.INFRASTRUCTURE and kind in self.counts
        ]
        if not kinds:
            return ""
        number = counted(sum(self.counts[kind] for kind in kinds), "object")
        causes = [f"{kind} {self.counts[kind]:,} ({self._message(kind)})" for kind in kinds]
        return f"{number} left undone: {', '.join(causes)}; {kinds[0].remedy}"

    def require_none_of_environment(self) -> None:
        """Raise WorkFailed if the machine, the network or the storage left objects undone."""
        if undone := self.undone():
            raise WorkFailed(undone)

    def _message(self, kind: str) -> str:
        text = printable(self._messages[kind]).replace("\n", " ")
        return text if len(text) <= _MESSAGE else f"{text[:_MESSAGE]}..."
