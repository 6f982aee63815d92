"""One picture and its camera to a mesh in the world: frames, sources of models, families."""

import itertools

import numpy as np
import pytest
import torch
import trimesh

from core.errors import BadInput
from dataset.cameras import camera_at, orbit_eye, project, world_to_camera
from tests.support import small_lrm, small_pixel2mesh
from train.inference.families import FAMILIES, family_of_keys, open_model
from train.inference.family import ModelOptions
from train.inference.six_views import camera_tensors
from train.models.pixel2mesh import feature_pooling

SIZES = ModelOptions(preset=small_pixel2mesh.PRESET, changes=small_pixel2mesh.SIZES)


def picture(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 1, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model():
    return small_pixel2mesh.random_model()


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    return small_pixel2mesh.write_file(model, tmp_path_factory.mktemp("weights") / "model.pt")


@pytest.mark.parametrize("distance", [2.2, 7.0])
def test_the_mesh_is_where_the_camera_sees_it(distance, model, file):
    """Project the mesh in the world, and the network's own vertices in its scaled frame."""
    camera = camera_at(orbit_eye(140, 35, distance), fov=43)
    inputs = camera_tensors([camera])
    result = open_model("pixel2mesh", file, SIZES).reconstruct(picture(), *inputs)
    with torch.no_grad():
        local = model(picture()[0], inputs[1][0]).meshes[-1]
    shape = result.shape
    image, depth = project(camera, shape.vertices)
    seen_at = feature_pooling.project(local, inputs[1][0])[0]
    np.testing.assert_allclose(image, seen_at.numpy(), atol=2e-5)
    np.testing.assert_allclose(depth * result.scale, -local[0, :, 2].numpy(), atol=1e-5)
    # The camera is 0.8 of the network's units from the origin.
    origin = world_to_camera(camera.camera_to_world)[:3, 3]
    np.testing.assert_allclose(result.scale * origin, [0, 0, -0.8], atol=1e-5)
    assert np.ptp(shape.vertices, axis=0).min() > 1e-3
    assert shape.faces.shape == (320, 3)
    assert shape.colour is None


def test_a_model_is_opened_from_every_source_with_the_same_result(tmp_path):
    template = small_pixel2mesh.own_template()
    model = small_pixel2mesh.random_model(template)
    run = small_pixel2mesh.write_run(model, tmp_path / "run", template)
    obj = tmp_path / "template.obj"
    rows = [f"v {x!r} {y!r} {z!r}" for x, y, z in template.vertices.tolist()]
    rows += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in template.faces.tolist()]
    obj.write_text("\n".join(rows))
    with_template = ModelOptions(preset=SIZES.preset, changes=SIZES.changes, template=obj)
    sources = [
        (run, ModelOptions()),
        (run / "checkpoints" / "step-00000007", ModelOptions()),
        (small_pixel2mesh.write_file(model, tmp_path / "model.pt"), with_template),
        (small_pixel2mesh.write_file(model, tmp_path / "model.safetensors"), with_template),
    ]
    cameras = camera_tensors([camera_at(orbit_eye(0, 10, 2.75), fov=50)])
    shapes = [
        open_model("pixel2mesh", source, options).reconstruct(picture(), *cameras).shape
        for source, options in sources
    ]
    for shape in shapes[1:]:
        np.testing.assert_array_equal(shape.vertices, shapes[0].vertices)
        np.testing.assert_array_equal(shape.faces, shapes[0].faces)
    with pytest.raises(BadInput, match=r"another template .*--template"):
        open_model("pixel2mesh", sources[2][0], SIZES)


def test_a_mesh_is_seen_from_outside_even_if_the_model_mirrors_the_template(tmp_path):
    cameras = camera_tensors([camera_at(orbit_eye(0, 10, 2.75), fov=50)])
    # Only such a model has a result whose sign is free: others move the template.
    absolute = small_pixel2mesh.SIZES | {"published": "align_corners"}
    options, shapes = ModelOptions(preset=SIZES.preset, changes=absolute), []
    for name in ("as-is.pt", "mirrored.pt"):
        model = small_pixel2mesh.random_model(published="align_corners")
        if name == "mirrored.pt":
            with torch.no_grad():
                for parameter in (model.gconv.weight, model.gconv.loop_weight, model.gconv.bias):
                    parameter[..., 0] *= -1
        source = small_pixel2mesh.write_file(model, tmp_path / name)
        shape = open_model("pixel2mesh", source, options).reconstruct(picture(), *cameras).shape
        shapes.append(trimesh.Trimesh(shape.vertices, shape.faces, process=False))
    volumes = [mesh.volume for mesh in shapes]
    assert volumes[0] > 0
    assert volumes[1] == pytest.approx(volumes[0], rel=1e-3)
    assert all(mesh.is_winding_consistent for mesh in shapes)


def test_a_mesh_that_is_not_finite_is_an_error(file):
    reconstructor = open_model("pixel2mesh", file, SIZES)
    cameras = camera_tensors([camera_at(orbit_eye(0, 10, 2.75), fov=50)])
    with pytest.raises(BadInput, match="vertices that are not finite"):
        assert reconstructor.reconstruct(picture() * float("nan"), *cameras).shape


@pytest.fixture(scope="module")
def sources(model, tmp_path_factory):
    """Return a run and a weight file of each family."""
    folder = tmp_path_factory.mktemp("families")
    lrms = {
        "nerf": (small_lrm.nerf_model(), small_lrm.NERF),
        "mesh": (small_lrm.mesh_model(), small_lrm.MESH),
    }
    found = {}
    for name, (lrm, changes) in lrms.items():
        file = small_lrm.write_file(lrm, folder / f"{name}.safetensors")
        found[name] = [small_lrm.write_run(lrm, changes, folder / name), file]
    file = small_pixel2mesh.write_file(model, folder / "pixel2mesh.safetensors")
    found["pixel2mesh"] = [small_pixel2mesh.write_run(model, folder / "pixel2mesh"), file]
    return found


@pytest.mark.parametrize(("found", "given"), list(itertools.permutations(FAMILIES, 2)))
def test_a_model_of_another_family_is_refused_with_the_option_to_use(found, given, sources):
    for source in sources[found]:
        with pytest.raises(BadInput) as caught:
            open_model(given, source)
        assert str(caught.value).endswith(f"give it as --use {found}:{source}")


def test_each_family_has_keys_of_its_own(sources):
    from train.models.weight_files.state_dicts import read_state

    for name, (_, file) in sources.items():
        keys = read_state(file)
        assert family_of_keys(keys) == name
        assert family_of_keys({f"module.{key}": value for key, value in keys.items()}) == name


@pytest.mark.parametrize("option", ["resolution", "template"])
@pytest.mark.parametrize("name", FAMILIES)
def test_an_option_of_another_family_is_refused(name, option, sources, tmp_path):
    if option in FAMILIES[name].options:
        return
    value = {"resolution": 8, "template": tmp_path / "a.obj"}[option]
    with pytest.raises(BadInput, match=f"--{option} is for .* only"):
        open_model(name, sources[name][0], ModelOptions(**{option: value}))


def test_the_preset_of_a_weight_file_is_the_one_that_fits(tmp_path):
    from train.models.pixel2mesh.pixel2mesh import Pixel2Mesh, pixel2mesh_preset

    torch.manual_seed(0)
    file = small_pixel2mesh.write_file(Pixel2Mesh(pixel2mesh_preset("tiny")), tmp_path / "t.pt")
    assert open_model("pixel2mesh", file).image_size == 64


@pytest.mark.parametrize("name", FAMILIES)
def test_a_setting_that_no_preset_has_is_named(name, sources):
    with pytest.raises(BadInput, match="unknown key 'size'"):
        open_model(name, sources[name][1], ModelOptions(changes={"size": 1}))
