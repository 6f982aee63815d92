"""Graph convolutions on a mesh, in the blocks of Pixel2Mesh and under the published key names."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from train.models.pixel2mesh.sparse_matrix import SparseMatrix

__all__ = ["GraphBlock", "GraphConvolution", "GraphResidual"]

_NUM_RESIDUALS = 6


class GraphConvolution(nn.Module):
    """y = A x W + x W_loop + b, with the support A of a mesh level.

    It computes in the type of x. Initial weights (Xavier) are drawn from torch's global generator;
    biases are initially 0.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.loop_weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.weight)
        nn.init.xavier_uniform_(self.loop_weight)

    def forward(
        self,
        x: Float[Tensor, "b n i"],
        support: SparseMatrix,
        unpooling: SparseMatrix | None = None,
    ) -> Float[Tensor, "b m o"]:
        """Return new features of a level's m vertices.

        With `unpooling`, x has the features of the level before. They are unpooled after the
        products with the weights: the result is the same, from a quarter of the operations.
        """
        rows = x.flatten(0, 1)
        neighbours = torch.mm(rows, self.weight.to(x.dtype))
        own = torch.addmm(self.bias.to(x.dtype), rows, self.loop_weight.to(x.dtype))
        neighbours, own = (part.unflatten(0, x.shape[:2]) for part in (neighbours, own))
        if unpooling is not None:
            neighbours, own = unpooling(neighbours), unpooling(own)
        return support(neighbours) + own


class GraphResidual(nn.Module):
    """The mean of features and what two convolutions make of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = GraphConvolution(width, width)
        self.conv2 = GraphConvolution(width, width)

    def forward(self, x: Float[Tensor, "b v c"], support: SparseMatrix) -> Float[Tensor, "b v c"]:
        """Return new features of a level's vertices."""
        hidden = F.relu(self.conv1(x, support), inplace=True)
        return (x + F.relu(self.conv2(hidden, support), inplace=True)) * 0.5


class GraphBlock(nn.Module):
    """The published bottleneck: a convolution, residual blocks, a convolution to the results."""

    def __init__(
        self, inputs: int, width: int, outputs: int, num_residuals: int = _NUM_RESIDUALS
    ) -> None:
        super().__init__()
        self.conv1 = GraphConvolution(inputs, width)
        self.blocks = nn.ModuleList(GraphResidual(width) for _ in range(num_residuals))
        self.conv2 = GraphConvolution(width, outputs)

    def forward(
        self,
        x: Float[Tensor, "b n i"],
        support: SparseMatrix,
        unpooling: SparseMatrix | None = None,
    ) -> tuple[Float[Tensor, "b m o"], Float[Tensor, "b m c"]]:
        """Return the results and the features that they are computed from.

        With `unpooling`, x has the features of the level before.
        """
        hidden = F.relu(self.conv1(x, support, unpooling), inplace=True)
        for block in self.blocks:
            hidden = block(hidden, support)
        return self.conv2(hidden, support), hidden
