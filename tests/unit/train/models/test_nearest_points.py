"""Nearest neighbours: both searches against all distances, gradients, and values to refuse."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from train.estimate.step_cost import MetaStep, count_step
from train.models.surfaces.nearest_points import (
    MAX_BYTES,
    chunked_search,
    nearest_points,
    select_points,
    tree_search,
)

KINDS = ["uniform", "cluster", "equal", "far", "close"]


def sets(kind: str, seed: int, num_points: int, num_targets: int, batch: int = 2):
    """Return two random point sets of a kind that a search could find difficult."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(batch, num_points, 3, generator=generator)
    targets = torch.randn(batch, num_targets, 3, generator=generator)
    if kind == "cluster":  # at the centre of a sphere, all targets are almost equally far
        return points * 1e-4, targets / targets.norm(dim=-1, keepdim=True)
    if kind == "equal":
        return torch.zeros_like(points), targets
    if kind == "far":
        return points + 1000, targets * 1e-2
    if kind == "close":  # distances of 1e-3 far from the origin
        return points * 1e-3 + 0.8, targets * 1e-3 + 0.8
    return points, targets


@pytest.mark.parametrize("search", [tree_search, chunked_search])
@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(0, 2**31),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 3000),
)
def test_every_index_is_that_of_a_nearest_point(search, kind, seed, num_points, num_targets, size):
    """Holds for any size of the chunks."""
    points, targets = sets(kind, seed, num_points, num_targets)
    limit = {"max_bytes": size} if search is chunked_search else {}
    forward, backward = search(points, targets, **limit)
    exact = (points.double()[:, :, None] - targets.double()[:, None]).square().sum(dim=-1)
    for index, distances in ((forward, exact), (backward, exact.mT)):
        chosen = distances.gather(2, index[..., None])[..., 0]
        torch.testing.assert_close(chosen, distances.amin(dim=2), rtol=1e-5, atol=0)


def test_squared_distances_and_their_gradients_are_exact_for_close_points():
    points, targets = sets("close", 0, 300, 500)
    points.requires_grad_()
    targets.requires_grad_()
    near = nearest_points(points, targets)
    (near.to_target.sum() + near.to_points.sum()).backward()
    a = points.detach().double().requires_grad_()
    b = targets.detach().double().requires_grad_()
    exact = (a[:, :, None] - b[:, None]).square().sum(dim=-1)
    (exact.amin(dim=2).sum() + exact.amin(dim=1).sum()).backward()
    torch.testing.assert_close(near.to_target.double(), exact.amin(dim=2), rtol=1e-5, atol=0)
    torch.testing.assert_close(near.to_points.double(), exact.amin(dim=1), rtol=1e-5, atol=0)
    for actual, expected in ((points.grad, a.grad), (targets.grad, b.grad)):
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-9)


def test_gradients_are_the_same_in_every_run_with_several_threads():
    """An object's points may be selected by two threads at once. A resume repeats every step."""
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(2000, (5, 9000), generator=generator)
    factors = torch.randn(5, 9000, 3, generator=generator)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    gradients = []
    for _ in range(16):
        values = torch.zeros(5, 2000, 3, requires_grad=True)
        select_points(values, index).backward(factors)
        gradients.append(values.grad)
    torch.set_num_threads(threads)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("search", ["tree_search", "chunked_search"])
def test_a_coordinate_that_is_not_finite_shows_in_the_distances(monkeypatch, value, side, search):
    """A training then skips the step, and does not continue with a wrong gradient."""
    module = "train.models.surfaces.nearest_points"
    monkeypatch.setattr(f"{module}.tree_search", globals()[search])
    pair = sets("uniform", 1, 30, 50)
    pair[side][1, 7, 2] = value
    near = nearest_points(*pair)
    distances = (near.to_target, near.to_points)[side]
    assert not distances[1, 7].isfinite()
    assert distances[0].isfinite().all()


def test_the_memory_of_a_large_search_is_bounded():
    """Holds on the meta device, which has shapes but no data: the estimate of a step needs both."""
    module = nn.Linear(3, 3)

    def step(objects: int) -> torch.Tensor:
        targets = torch.empty(objects, 20_000, 3, device="meta")
        near = nearest_points(module(targets)[:, :15_000], targets)
        assert near.target_index.shape == near.to_target.shape == (objects, 15_000)
        assert near.point_index.shape == near.to_points.shape == (objects, 20_000)
        return near.to_points.sum()

    cost = count_step(MetaStep(module=module.to("meta"), step=step), 1)
    # Beside the search's memory: a few arrays of 20,000 points, and what backward needs.
    assert MAX_BYTES < cost.activation_bytes < MAX_BYTES + 20_000 * 200


@pytest.mark.parametrize("shape", [(1, 0, 3), (1, 5, 3)])
def test_an_empty_set_is_refused(shape):
    with pytest.raises(ValueError, match="a set without points has no nearest point"):
        nearest_points(torch.zeros(shape), torch.zeros(1, 5 - shape[1], 3))
