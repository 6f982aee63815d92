"""Products with sparse matrices, and their gradients, against dense ones."""

import numpy as np
import pytest
import torch

from train.models.pixel2mesh.sparse_matrix import SparseMatrix
from train.models.pixel2mesh.template_mesh import ellipsoid, mesh_levels


def random_matrix(seed, shape, share=0.2):
    """Return a matrix in both forms; some rows and columns have no entry."""
    random = np.random.RandomState(seed)
    values = random.normal(size=shape).astype(np.float32) * (random.uniform(size=shape) < share)
    rows, columns = values.nonzero()
    order = random.permutation(len(rows))
    rows, columns = rows[order], columns[order]
    return SparseMatrix(rows, columns, values[rows, columns], shape), torch.from_numpy(values)


@pytest.mark.parametrize("shape", [(7, 7), (5, 12), (12, 5), (1, 1)])
@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_products_and_gradients_are_those_of_the_dense_matrix(shape, batch, dtype):
    matrix, values = random_matrix(sum(shape), shape)
    x = torch.randn(batch, shape[1], 4).to(dtype).requires_grad_()
    result = matrix(x)
    gradient = torch.randn(batch, shape[0], 4).to(dtype)
    result.backward(gradient)
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype is torch.bfloat16 else {}
    exact = torch.float64
    expected = (values.to(exact) @ x.detach().to(exact)).to(dtype)
    torch.testing.assert_close(result.detach(), expected, **tolerance)
    expected = (values.T.to(exact) @ gradient.to(exact)).to(dtype)
    torch.testing.assert_close(x.grad, expected, **tolerance)


def test_an_object_has_the_same_result_in_every_batch():
    """A resume with another number of ranks divides a batch differently."""
    level = mesh_levels(ellipsoid(40))[1]
    x = torch.randn(4, level.num_vertices, 32)
    for matrix in (level.support, level.unpooling):
        assert torch.equal(matrix(x), torch.cat([matrix(part) for part in x.split([1, 2, 1])]))


def test_a_matrix_stays_in_float32_and_out_of_the_state():
    matrix, _ = random_matrix(3, (6, 6))
    expected = matrix(torch.eye(6)[None])
    assert torch.equal(matrix.bfloat16()(torch.eye(6)[None]), expected)
    assert matrix.state_dict() == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_repeats_the_result_of_the_cpu(dtype):
    level = mesh_levels(ellipsoid())[2]
    x = torch.randn(2, level.num_vertices, 64).to(dtype)
    expected, on_gpu = level.support(x), level.cuda()
    results = [on_gpu.support(x.cuda()) for _ in range(3)]
    assert all(torch.equal(result, results[0]) for result in results)
    torch.testing.assert_close(results[0].cpu(), expected)
