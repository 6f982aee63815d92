"""Graph convolutions and their blocks against the oracle, and the order of unpooling."""

import torch
from torch import nn

from train.models.pixel2mesh.graph_convolution import GraphBlock, GraphConvolution, GraphResidual
from train.models.pixel2mesh.sparse_matrix import SparseMatrix
from train.models.pixel2mesh.template_mesh import ellipsoid, mesh_levels


def sparse(matrix):
    rows, columns = matrix.nonzero().T
    values = matrix[rows, columns].numpy()
    return SparseMatrix(rows.numpy(), columns.numpy(), values, tuple(matrix.shape))


def unpooling(pairs, num_vertices):
    matrix = torch.zeros(len(pairs), num_vertices).scatter_(1, pairs, 0.5)
    return sparse(torch.cat([torch.eye(num_vertices), matrix]))


def test_layers_and_gradients_match_the_oracle(oracle):
    expected = oracle("p2m_layers")
    inputs, width, outputs = (expected.config[name] for name in ("in", "hidden", "out"))
    support = sparse(expected["in.adj"])
    layers = nn.ModuleDict(
        {
            "gconv": GraphConvolution(inputs, width),
            "resblock": GraphResidual(width),
            "bottleneck": GraphBlock(inputs, width, outputs, num_residuals=2),
        }
    )
    state = expected.with_prefix("state.")
    layers.load_state_dict(
        {key: value for key, value in state.items() if not key.startswith("bottleneck_linear.")}
    )
    x = expected["in.x"].requires_grad_()
    expected.check(layers["gconv"](x, support), "out.gconv")
    expected.check(layers["resblock"](expected["in.h"], support), "out.resblock")
    result, hidden = layers["bottleneck"](x, support)
    unpooled = unpooling(expected["in.unpool"], expected.config["vertices"])(result)
    expected.check(result, "out.bottleneck")
    expected.check(hidden, "out.bottleneck_hidden")
    expected.check(unpooled, "out.unpooled")
    loss = unpooled.square().mean() + hidden.sin().mean()
    expected.check(loss, "out.loss")
    loss.backward()
    gradients = {"x": x.grad} | {name: p.grad for name, p in layers.named_parameters()}
    for name in expected.with_prefix("out.grad."):
        expected.check(gradients[name], f"out.grad.{name}")


def test_unpooling_after_the_products_gives_the_same_result_and_gradients():
    coarse, fine, _ = mesh_levels(ellipsoid(20))
    torch.manual_seed(0)
    layer = GraphConvolution(9, 5)
    nn.init.normal_(layer.bias)
    x = torch.randn(2, coarse.num_vertices, 9, requires_grad=True)
    tensors = [x, *layer.parameters()]
    late = layer(x, fine.support, coarse.unpooling)
    early = layer(coarse.unpooling(x), fine.support)
    torch.testing.assert_close(late, early)
    gradients = [torch.autograd.grad(y.sin().sum(), tensors) for y in (late, early)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
