"""Oracles: results that the published implementations computed for small random models."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Oracle:
    """One oracle: its configuration, inputs (`in.`), weights (`state.`) and results (`out.`)."""

    name: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def with_prefix(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names start with the prefix, under names without it."""
        tensors = {
            k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)
        }
        assert tensors, f"oracle {self.name} has no tensors under {prefix}"
        return tensors

    def check(self, actual: Tensor, name: str, tolerance: float = 1e-4) -> None:
        """Assert that `actual` is the stored result.

        The tolerance is absolute; if the result's range is below 1, it is relative to that range.
        """
        expected = self[name]
        value_range = (expected.max() - expected.min()).item() if expected.numel() > 1 else 1.0
        torch.testing.assert_close(
            actual.detach().reshape(expected.shape),
            expected,
            atol=tolerance * min(1.0, value_range),
            rtol=1e-6,
            msg=lambda text: f"{self.name}: {name}: {text}",
        )
