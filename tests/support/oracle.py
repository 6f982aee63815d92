"""Oracles: numbers that the published implementations computed on small random models."""

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

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with the prefix, without it."""
        found = {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}
        assert found, f"oracle {self.name} holds nothing under {prefix}"
        return found

    def check(self, actual: Tensor, name: str, tolerance: float = 1e-4) -> None:
        """Compare with a result; the tolerance is absolute, and relative below a spread of 1."""
        expected = self[name]
        spread = (expected.max() - expected.min()).item() if expected.numel() > 1 else 1.0
        torch.testing.assert_close(
            actual.detach().reshape(expected.shape),
            expected,
            atol=tolerance * min(1.0, spread),
            rtol=1e-6,
            msg=lambda text: f"{self.name}: {name}: {text}",
        )
