"""Shape annotations are checked at run time, in the tests."""

import pytest
import torch
from jaxtyping import TypeCheckError

from tests.support.shapes import modules_with_shapes
from train.models.lrm.triplane import sample_planes


def test_a_wrong_shape_is_an_error():
    with pytest.raises(TypeCheckError, match="sample_planes"):
        sample_planes(torch.rand(2, 3, 4), torch.rand(1, 2, 3))


def test_the_modules_are_those_that_annotate_shapes():
    modules = modules_with_shapes()
    assert {"train.models.lrm.triplane", "dataset.cameras", "dataset.views"} < set(modules)
    # A package would stand for all modules below it.
    assert not {"dataset", "filters", "render", "train", "train.models"} & set(modules)
