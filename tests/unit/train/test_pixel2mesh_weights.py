"""Published weights of Pixel2Mesh: what is loaded, dropped, written, and refused in one line."""

import logging
from collections import Counter

import numpy as np
import pytest
import safetensors.torch
import torch

from core.errors import BadInput
from train.checkpoints.initial_weights import absolute_source, check_source, initialize
from train.models.pixel2mesh.pixel2mesh import Pixel2Mesh, Pixel2MeshConfig
from train.models.pixel2mesh.pixel2mesh_weights import (
    PIXEL2MESH_WEIGHTS,
    write_weights,
)
from train.models.pixel2mesh.template_mesh import CENTRE, Template, ellipsoid
from train.models.weight_files.conversion import check_converted, load_converted
from train.models.weight_files.state_dicts import read_state
from train.models.weight_files.writing import check_ending

convert = PIXEL2MESH_WEIGHTS.convert
SIZES = {
    "encoder_width": 1,
    "hidden": 4,
    "last_hidden": 3,
    "image_size": 32,
    "num_vertices": 20,
}
RESNET = SIZES | {"encoder": "resnet"}
UNUSED = ("nn_decoder.conv_1.weight", "gconv.adj_mat", "gcns.0.conv1.adj_mat")


def tiny_model(seed=0, template=None, device="cpu", **changes):
    torch.manual_seed(seed)
    with torch.device(device):
        return Pixel2Mesh(Pixel2MeshConfig.load(SIZES | changes), template)


def published(model, prefix=""):
    """Return a state dict as the port writes it, with keys that are not loaded."""
    state = {prefix + key: value for key, value in model.state_dict().items()}
    counters = {
        key.replace("running_mean", "num_batches_tracked"): torch.tensor(7)
        for key in state
        if key.endswith("running_mean")
    }
    classes = ("nn_encoder.fc.weight", "nn_encoder.fc.bias") if counters else ()
    return state | counters | {prefix + key: torch.ones(2, 2) for key in (*UNUSED, *classes)}


def save_checkpoint(model, path, prefix=""):
    """Write a training checkpoint with the port's keys, with the state of its optimizer."""
    parameters = [*model.parameters()]
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}
    content = {
        "model": published(model, prefix),
        "optimizer": {
            "state": dict.fromkeys(range(len(parameters)), moments),
            "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [*range(9)]}],
        },
        "lr_scheduler": {"milestones": Counter([30, 45]), "gamma": 0.3, "base_lrs": [1e-4]},
        "epoch": 49,
        "total_step_count": 300_000,
    }
    torch.save(content, path)


def assert_equal(model, state):
    own = model.state_dict()
    assert set(own) == set(state)
    for key, value in state.items():
        assert torch.equal(own[key], value), key


@pytest.mark.parametrize(
    ("sizes", "prefix"),
    [
        (SIZES | {"published": "tensorflow"}, "module."),
        (RESNET | {"published": "align_corners"}, ""),
    ],
)
def test_a_published_checkpoint_is_loaded_and_its_other_keys_are_reported(
    sizes, prefix, tmp_path, caplog
):
    model, loaded = tiny_model(**sizes), tiny_model(seed=1, **sizes)
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(model, path, prefix)
    with caplog.at_level(logging.INFO):
        report = initialize(PIXEL2MESH_WEIGHTS, loaded, f"pixel2mesh:{path}")
    assert_equal(loaded, model.state_dict())
    assert (report.loaded, report.new) == (len(model.state_dict()), ())
    others = published(model, prefix).keys() - {prefix + key for key in model.state_dict()}
    assert {*report.dropped} == others
    assert len(report.renamed) == (report.loaded if prefix else 0)
    assert all(f"dropped {prefix}{key}" in caplog.text for key in UNUSED)
    check_source(
        PIXEL2MESH_WEIGHTS, tiny_model(device="meta", **sizes), model.config, f"pixel2mesh:{path}"
    )


@pytest.mark.parametrize(("sizes", "suffix"), [(SIZES, "safetensors"), (RESNET, "pt")])
def test_written_weights_have_the_published_keys_and_give_the_same_mesh(sizes, suffix, tmp_path):
    model, loaded = tiny_model(**sizes), tiny_model(seed=1, **sizes)
    path = tmp_path / "deep" / f"model.{suffix}"
    write_weights(model.state_dict(), path)
    assert_equal(model, read_state(path, PIXEL2MESH_WEIGHTS.containers))
    if suffix == "pt":
        assert {*torch.load(path, weights_only=True)["model"]} == {*model.state_dict()}
    else:
        assert {*safetensors.torch.load_file(path)} == {*model.state_dict()}
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    report = initialize(PIXEL2MESH_WEIGHTS, loaded, str(path))
    assert (report.dropped, report.new) == ((), ())
    view = torch.rand(1, 3, 32, 32), torch.tensor([[1.1, 1.1, 0.5, 0.5]])
    for one, other in zip(model(*view).meshes, loaded(*view).meshes, strict=True):
        assert torch.equal(one, other)
    with pytest.raises(BadInput, match=r"written as \.pt or \.safetensors"):
        check_ending(tmp_path / "model.ckpt", PIXEL2MESH_WEIGHTS.layouts)


def test_imagenet_weights_initialise_only_resnet(tmp_path):
    source, model = tiny_model(seed=5, **RESNET), tiny_model(**RESNET)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    encoder = source.nn_encoder.state_dict()
    classes = {"fc.weight": torch.ones(9, 4), "fc.bias": torch.ones(9)}
    counters = {"layer1.0.bn1.num_batches_tracked": torch.tensor(0)}
    torch.save(encoder | classes | counters, tmp_path / "resnet50.pth")
    kind = f"resnet50:{tmp_path / 'resnet50.pth'}"
    report = initialize(PIXEL2MESH_WEIGHTS, model, kind)
    assert {*report.dropped} == {*classes, *counters}
    assert report.loaded == len(encoder)
    assert {*report.new} == {key for key in before if not key.startswith("nn_encoder.")}
    for key, value in model.state_dict().items():
        name = key.removeprefix("nn_encoder.")
        assert torch.equal(value, before[key] if key in report.new else encoder[name]), key
    incomplete = {key: value for key, value in encoder.items() if key != "layer2.1.bn3.bias"}
    with pytest.raises(BadInput, match=r"needs nn_encoder\.layer2\.1\.bn3\.bias"):
        load_converted(model, convert(model, incomplete, "resnet50", "file"), source="file")
    with pytest.raises(BadInput, match=r"ResNet-50, but the model's is vgg; give --preset resnet"):
        check_source(PIXEL2MESH_WEIGHTS, tiny_model(), model.config, kind)


DAMAGED = {
    "missing": (lambda s: s.pop("gconv.bias"), r"the model needs gconv\.bias"),
    "no-template": (lambda s: s.pop("init_pts"), r"the model needs init_pts"),
    "unknown": (lambda s: s.update(extra=torch.ones(1)), "does not have extra"),
    "twice": (
        lambda s: s.update({"module.gconv.bias": torch.ones(3)}),
        r"does not have module\.gconv",
    ),
    "shape": (lambda s: s.update({"gconv.bias": torch.ones(4)}), r"gconv\.bias \(4,\) instead"),
    "type": (
        lambda s: s.update({"gconv.bias": torch.ones(3, dtype=torch.int64)}),
        r"types differ: gconv\.bias",
    ),
    "nan": (lambda s: s["gconv.bias"].fill_(torch.nan), r"not finite in gconv\.bias"),
    "infinite-template": (lambda s: s["init_pts"].fill_(torch.inf), "another template"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_weights_that_do_not_fit_are_refused_and_nothing_is_loaded(damage):
    change, cause = DAMAGED[damage]
    model = tiny_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = {key: value.clone() for key, value in before.items()}
    state["gconv.weight"] += 1
    change(state)
    with pytest.raises(BadInput, match=cause) as caught:
        load_converted(model, convert(model, state, "pixel2mesh", "file"), source="file")
    assert "\n" not in str(caught.value)
    assert_equal(model, before)


def permuted(template):
    """Return the same shape with its vertices in another order."""
    order = np.random.RandomState(0).permutation(len(template.vertices))
    faces = np.argsort(order)[template.faces]
    return Template(vertices=template.vertices[order], faces=faces)


def scaled(template):
    vertices = (template.vertices - CENTRE) * 1.01 + CENTRE
    return Template(vertices=vertices, faces=template.faces)


OWN = ellipsoid(20)
TEMPLATES = {
    "published": (
        OWN,
        {"published": "align_corners"},
        {},
        r"predicts coordinates, .*'\{published: align_corners\}'",
    ),
    "published-migrated": (
        OWN,
        {"published": "tensorflow"},
        {},
        r"predicts coordinates, .*'\{published: tensorflow\}'",
    ),
    "own": (OWN, {}, {"published": "half_pixel"}, "predicts displacements, .*; leave `published`"),
    "size": (ellipsoid(21), {}, {}, "another template .21 vertices instead of 20"),
    "order": (permuted(OWN), {}, {}, "another template .they differ by up to"),
    "scale": (scaled(OWN), {}, {}, "another template .they differ by up to"),
    "migrated": (
        OWN,
        {"published": "tensorflow"},
        {"published": "align_corners"},
        r"around z = -0\.80, but the model's around z = .*'\{published: tensorflow\}'",
    ),
    "not-migrated": (
        OWN,
        {"published": "align_corners"},
        {"published": "tensorflow"},
        r"around z = .*'\{published: align_corners\}'",
    ),
}


@pytest.mark.parametrize("case", TEMPLATES)
def test_weights_of_another_template_or_frame_are_refused(case):
    template, stored, wanted, cause = TEMPLATES[case]
    state = tiny_model(template=template, **stored).state_dict()
    model = tiny_model(device="meta", **wanted)
    with pytest.raises(BadInput, match=cause) as caught:
        check_converted(model, convert(model, state, "pixel2mesh", "file"), source="file")
    assert "\n" not in str(caught.value)


def test_a_template_of_six_digits_is_the_same_template():
    template = Template(vertices=OWN.vertices.round(6), faces=OWN.faces)
    model, state = tiny_model(template=template), tiny_model(seed=1).state_dict()
    load_converted(model, convert(model, state, "pixel2mesh", "file"), source="file")
    assert torch.equal(model.init_pts, state["init_pts"])


def test_a_source_is_kind_and_file_or_a_path(tmp_path):
    for source in ("checkpoint.ckpt", "dino:file.pth"):
        with pytest.raises(BadInput, match=rf"{source}: no such source; .* pixel2mesh, resnet50"):
            initialize(PIXEL2MESH_WEIGHTS, tiny_model(), source)
    assert absolute_source(PIXEL2MESH_WEIGHTS, "resnet50:/a.pth") == "resnet50:/a.pth"
