"""A template in the configuration of a run."""

import json

import numpy as np
import pytest

from core.errors import BadInput
from train.models.pixel2mesh.stored_template import dump_template, load_template
from train.models.pixel2mesh.template_mesh import ellipsoid

PLAIN = dump_template(ellipsoid(12))


def test_a_stored_template_is_the_same():
    loaded, template = load_template(json.loads(json.dumps(PLAIN))), ellipsoid(12)
    assert np.array_equal(loaded.vertices, template.vertices)
    assert np.array_equal(loaded.faces, template.faces)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"vertices": PLAIN["vertices"]},
        PLAIN | {"faces": PLAIN["faces"][1:]},
        PLAIN | {"faces": [[0, 1, 99]]},
        PLAIN | {"faces": [[0, 1, 2**80]]},
        PLAIN | {"faces": [0, 1, 2]},
        PLAIN | {"faces": "all"},
        PLAIN | {"vertices": [[0, 0]] * 12},
        PLAIN | {"vertices": [[0, 0, float("nan")]] * 12},
        PLAIN | {"vertices": None},
    ],
)
def test_values_of_no_closed_mesh_are_refused_in_one_line(values):
    with pytest.raises(BadInput, match=r"^template: is no mesh .*give an \.obj file") as error:
        load_template(values)
    assert "\n" not in str(error.value)
