"""Products with constant sparse matrices, fast and deterministic on every device."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

__all__ = ["SparseMatrix"]


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """A matrix in compressed rows."""

    starts: Int[Tensor, "r"]
    """Index of the first entry of each row, and the number of entries."""
    columns: Int[Tensor, "k"]
    values: Float[Tensor, "k"]
    num_columns: int

    def product(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b m c"]:
        """Return the product with each object of a batch.

        One call of `embedding_bag` sums the rows of all objects, each by one thread in a fixed
        order, without intermediate tensors. It takes bfloat16 and the meta device, which
        torch's sparse formats do not, and is the fastest of the ways that are deterministic.
        """
        batch, _, channels = x.shape
        objects = torch.arange(batch, device=x.device)[:, None]
        columns = self.columns + self.num_columns * objects
        starts = self.starts[:-1] + len(self.columns) * objects
        sums = F.embedding_bag(
            columns.flatten(),
            x.flatten(0, 1),
            starts.flatten(),
            mode="sum",
            per_sample_weights=self.values.to(x.dtype).repeat(batch),
        )
        return sums.view(batch, len(self.starts) - 1, channels)


class SparseMatrix(nn.Module):
    """A constant m x n matrix that multiplies the middle axis of [b, n, c].

    The backward pass multiplies by the transposed matrix, which is stored as well, so that
    gradients are sums in a fixed order, too: adding to scattered rows would depend on the order of
    threads. Nothing of the matrix is in the state dict.
    """

    def __init__(
        self,
        rows: Int[np.ndarray, "k"],
        columns: Int[np.ndarray, "k"],
        values: Float[np.ndarray, "k"],
        shape: tuple[int, int],
    ) -> None:
        """Store the entries `values` at (`rows`, `columns`), each of which occurs once."""
        super().__init__()
        self.shape = shape
        device = torch.get_default_device()
        for name, (first, second), size in (
            ("forward", (rows, columns), shape[0]),
            ("backward", (columns, rows), shape[1]),
        ):
            order = np.lexsort((second, first))
            starts = np.concatenate([[0], np.cumsum(np.bincount(first, minlength=size))])
            for part, array in (
                ("starts", starts.astype(np.int64)),
                ("columns", second[order].astype(np.int64)),
                ("values", values[order].astype(np.float32)),
            ):
                tensor = torch.from_numpy(array).to(device)
                self.register_buffer(f"{name}_{part}", tensor, persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> "SparseMatrix":
        """Move to the device that `fn` moves to, but stay in float32."""
        for name, value in self.named_buffers():
            self._buffers[name] = value.to(fn(value.new_empty(0)).device)
        return self

    def rows(self, *, transposed: bool = False) -> _Rows:
        """Return the matrix, or the transposed one, in compressed rows."""
        name = "backward" if transposed else "forward"
        return _Rows(
            starts=self.get_buffer(f"{name}_starts"),
            columns=self.get_buffer(f"{name}_columns"),
            values=self.get_buffer(f"{name}_values"),
            num_columns=self.shape[0 if transposed else 1],
        )

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b m c"]:
        """Return the product with each object of a batch, in the type of `x`."""
        product: Tensor = _Product.apply(x, self)
        return product


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: SparseMatrix) -> Tensor:
        ctx.matrix = matrix
        return matrix.rows().product(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.matrix.rows(transposed=True).product(gradient), None  # type: ignore[attr-defined]
