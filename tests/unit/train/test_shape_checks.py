"""Shape annotations are checked at run time while the tests run."""

import pytest
import torch
from jaxtyping import TypeCheckError

from tests.support.shape_checks import modules_with_shapes
from train.models.lrm.triplane import sample_planes


def test_a_wrong_shape_is_an_error():
    with pytest.raises(TypeCheckError, match="sample_planes"):
        sample_planes(torch.rand(2, 3, 4), torch.rand(1, 2, 3))


def test_only_modules_that_annotate_shapes_are_checked():
    modules = modules_with_shapes()
    assert {"train.models.lrm.triplane", "dataset.cameras", "dataset.views"} < set(modules)
    # Naming a package would check all of its modules.
    assert not {"dataset", "filters", "render", "train", "train.models"} & set(modules)
