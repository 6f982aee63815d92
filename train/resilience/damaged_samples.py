"""Damaged samples: what stands in for them, how they are counted, and how many are too many."""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import UInt8
from pydantic import PositiveInt
from torch import Tensor

from core.config import Config, Fraction
from core.errors import FinalFailure
from train.resilience.collectives import gather

__all__ = [
    "REMEDY",
    "Fault",
    "FaultConfig",
    "FaultCounter",
    "Replacement",
    "gather_replacements",
    "pack_faults",
    "unpack_faults",
]

REMEDY = "`lrm verify --root ROOT` names what is damaged and mends what it can (docs/operating.md)"
_BYTES = 4096
"""Of one item's record: it travels as a tensor, as all else of an item does."""
_LONGEST = 160
"""Characters of a cause or name: one fault has room, however they are escaped."""


class FaultConfig(Config):
    """How many samples may be damaged or missing before a run ends."""

    max_share: Fraction = 0.01
    """Largest share of replaced samples among the last `window`; 0 tolerates none."""
    window: PositiveInt = 1000
    """Positions that the share is of, in whole steps."""


@dataclass(frozen=True)
class Fault:
    """A sample that was wanted at a position and could not be used."""

    position: int
    asset_id: str
    shard: str
    cause: str

    def __str__(self) -> str:
        return f"{self.asset_id} in {self.shard}: {self.cause}"


@dataclass(frozen=True)
class Replacement:
    """What stands at a position instead of a damaged sample."""

    faults: Sequence[Fault]
    """The sample of the order, and then what should have stood in and was damaged too."""
    replaced_by: str
    """Asset id."""


def pack_faults(faults: Sequence[Fault], used: str) -> UInt8[Tensor, "n"]:
    """The record of an item of which the sample `used` came after these; empty if none did.

    A record without room for all faults has the first ones.
    """
    record = torch.zeros(_BYTES, dtype=torch.uint8)
    if faults:
        rows = [
            {name: v[:_LONGEST] if isinstance(v, str) else v for name, v in asdict(fault).items()}
            for fault in faults
        ]
        while len(text := _dump(rows, used[:_LONGEST])) > _BYTES:
            rows.pop()
        record[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    return record


def _dump(rows: Sequence[Mapping[str, Any]], used: str) -> bytes:
    return json.dumps({"used": used, "faults": rows}, ensure_ascii=False).encode()


def unpack_faults(records: UInt8[Tensor, "b n"]) -> list[Replacement]:
    """The replacements in a batch, in the order of its items."""
    found = []
    for record in records[records[:, 0] > 0]:
        values = json.loads(record.numpy().tobytes().rstrip(b"\0"))
        faults = [Fault(**row) for row in values["faults"]]
        found.append(Replacement(faults, values["used"]))
    return found


def gather_replacements(own: Sequence[Replacement]) -> list[Replacement]:
    """Those of all ranks, by position; every rank calls it."""
    everything = [one for share in gather(list(own)) for one in share]
    return sorted(everything, key=lambda one: one.faults[0].position)


class FaultCounter:
    """Counts the replaced samples of each step; the same on all ranks and after a restart."""

    def __init__(
        self, config: FaultConfig, batch_size: int, state: Mapping[str, Any] | None = None
    ) -> None:
        """`state` is what `dump` returned when the checkpoint was written."""
        state = state or {}
        self._config = config
        self._steps = -(-config.window // batch_size)
        self._batch_size = batch_size
        self._recent: deque[int] = deque(state.get("recent", ()), maxlen=self._steps)
        self.replaced = int(state.get("replaced", 0))
        """Samples of the run that another stood in for."""

    def dump(self) -> dict[str, Any]:
        """Plain values for a checkpoint's manifest."""
        return {"recent": list(self._recent), "replaced": self.replaced}

    def settle(self, replaced: int) -> None:
        """A step is done, with so many replaced samples."""
        self._recent.append(replaced)
        self.replaced += replaced

    def check(self, step: int, found: Sequence[Replacement]) -> None:
        """Raise FinalFailure if too many of the last samples were replaced; these in this step."""
        seen, recent = self._steps * self._batch_size, sum(self._recent)
        if found and recent > self._config.max_share * seen:
            raise FinalFailure(
                f"step {step}: {found[-1].faults[0]}; {recent} of the last {seen} samples were "
                f"damaged, and data_faults.max_share is {self._config.max_share:g}: {REMEDY}; "
                "replaced.jsonl lists them"
            )
