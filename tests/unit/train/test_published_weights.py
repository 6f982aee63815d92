"""Loading and exporting published weights: loaded, renamed, dropped and new keys, and errors."""

import logging
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from core.errors import BadInput
from tests.support.lrm_models import TINY, viewpoints
from tests.support.topology import defects
from train.checkpoints.initial_weights import absolute_source, initialize
from train.models.lrm.lrm import MeshLRM, MeshLRMConfig, NerfLRM, NerfLRMConfig, nerf_preset
from train.models.lrm.nerf import activate_density, raw_density
from train.models.lrm.published_weights import (
    LRM_WEIGHTS,
    export_weights,
    load_state,
    load_weights,
)
from train.models.lrm.triplane import TriplaneTransformer, sample_planes
from train.models.surfaces.flexicubes import grid_vertices

KINDS = ("weight", "bias")


def sizes_of(state):
    """Return the configuration of the LRM with the shapes of a state dict."""
    vit = "encoder.model"
    projection = state[f"{vit}.embeddings.patch_embeddings.projection.weight"]
    positions = state[f"{vit}.embeddings.position_embeddings"]
    deconv = state["transformer.deconv.weight"]
    low = round((state["transformer.pos_embed"].shape[1] / 3) ** 0.5)
    patch = projection.shape[-1]

    def layers(prefix):
        starts = {key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)}
        return len(starts)

    return {
        "encoder": {
            "num_layers": layers(f"{vit}.encoder.layer."),
            "width": projection.shape[0],
            "num_heads": 1,
            "mlp_width": len(state[f"{vit}.encoder.layer.0.intermediate.dense.bias"]),
            "patch_size": patch,
            "position_side": round((positions.shape[1] - 1) ** 0.5),
        },
        "transformer": {
            "num_layers": layers("transformer.layers."),
            "width": deconv.shape[0],
            "num_heads": 1,
            "low_resolution": low,
            "high_resolution": low * deconv.shape[-1],
            "channels": deconv.shape[1],
        },
        "image_size": 4 * patch,
    }


def nerf_like(state):
    width = len(state["synthesizer.decoder.net.0.bias"])
    return NerfLRM(NerfLRMConfig.load(sizes_of(state) | {"nerf": {"decoder_width": width}}))


def tiny_model(cls=NerfLRM, seed=0):
    torch.manual_seed(seed)
    if cls is NerfLRM:
        return NerfLRM(TINY)
    mesh = {"decoder_width": 16, "grid_resolution": 16, "rasterizer": "torch"}
    config = MeshLRMConfig(
        encoder=TINY.encoder, transformer=TINY.transformer, image_size=TINY.image_size, mesh=mesh
    )
    return MeshLRM(config)


def assert_equal(model, state):
    loaded = model.state_dict()
    assert set(loaded) == set(state)
    for key, value in state.items():
        assert torch.equal(loaded[key], value), key


def test_weights_of_stage_one_initialise_stage_two_as_in_the_oracle(oracle):
    expected = oracle("nerf_to_mesh_init")
    before = expected.with_prefix("state.mesh_before.")
    mesh = {
        "decoder_width": len(before["synthesizer.decoder.net_sdf.0.bias"]),
        "grid_resolution": expected.config["grid_res"],
        "grid_size": expected.config["grid_scale"],
        "rasterizer": "torch",
    }
    model = MeshLRM(MeshLRMConfig.load(sizes_of(before) | {"mesh": mesh}))
    model.load_state_dict(before, strict=True)
    state = expected.with_prefix("state.nerf.")
    report = load_state(model, state, "instantmesh", source="stage 1", published_threshold=True)
    assert_equal(model, expected.with_prefix("out.mesh_after."))
    assert report.dropped == tuple(key for key in state if key.startswith("lpips."))
    nets = ("net_deformation", "net_weight")
    assert {*report.new} == {key for key in before if any(f".{net}." in key for net in nets)}
    assert {*report.renamed} == {
        key.removeprefix("lrm_generator.") for key in state if ".decoder.net." in key
    }


def smooth_planes(seed):
    """Return the triplanes of one object, which change little from cube to cube."""
    coarse = torch.randn(3, 6, 3, 3, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (16, 16), mode="bicubic", align_corners=True)[None]


@torch.no_grad()
def test_the_first_surface_of_stage_two_is_the_iso_surface_of_stage_one(tmp_path):
    threshold = torch.tensor(10.0)
    torch.testing.assert_close(activate_density(raw_density(threshold)), threshold)
    nerf, mesh, planes = tiny_model(), tiny_model(MeshLRM, seed=1), smooth_planes(3)
    grid = grid_vertices(16, 2.1)[None]
    # Make half of the grid denser than the threshold, and the field steep.
    last = nerf.synthesizer.decoder.net[-1]
    last.weight[0] *= 50
    last.bias[0] = raw_density(threshold) - nerf.synthesizer.field(planes)(grid)[0].median()
    export_weights(nerf, tmp_path / "nerf.ckpt")
    load_weights(mesh, tmp_path / "nerf.ckpt", "instantmesh")

    raw, _ = nerf.synthesizer.field(planes)(grid)
    sdf = mesh.synthesizer.distances(planes)
    torch.testing.assert_close(sdf, raw_density(threshold) - raw, atol=1e-3, rtol=1e-4)
    assert 0.3 < (sdf < 0).float().mean() < 0.7
    off_surface = sdf.abs() > 1e-3
    assert torch.equal(sdf[off_surface] < 0, activate_density(raw[off_surface]) > threshold)
    surface = mesh.synthesizer.geometry(planes, centred=False).surfaces[0]
    assert defects(surface.faces) == []
    # The border is excluded, because the mesh is closed there and the field is not.
    inner = surface.vertices[surface.vertices.abs().amax(dim=1) < 0.85]
    assert len(inner) > 50
    surface_raw, rgb = nerf.synthesizer.field(planes)(inner[None])
    spread = (raw - raw.mean()).abs().mean()
    assert (surface_raw - raw_density(threshold)).abs().mean() < 0.1 * spread
    colours = mesh.synthesizer.colour(planes[0], inner)
    torch.testing.assert_close(colours, rgb[0], atol=1e-5, rtol=0)


def test_openlrm_weights_load_as_in_the_oracle_and_keep_their_norms(oracle):
    expected = oracle("openlrm_to_instantmesh")
    before = expected.with_prefix("state.instantmesh_before.")
    model = nerf_like(before)
    model.load_state_dict(before, strict=True)
    state = expected.with_prefix("state.openlrm.")
    report = load_state(model, state, "openlrm", source="openlrm")
    own, reference = model.state_dict(), expected.with_prefix("out.instantmesh_after.")
    assert {*report.renamed.values()} == {
        key for key in own if ".norm" in key and "transformer.layers" in key
    }
    for key, value in own.items():
        if key in report.renamed.values():
            # The published code skips these keys without a warning.
            assert torch.equal(reference[key], before[key]), key
            continue
        assert torch.equal(value, reference[key]), key
    for before_name, after_name in report.renamed.items():
        assert torch.equal(own[after_name], state[before_name])
    assert {*report.new} == {k for k in own if "camera_embedder" in k or "adaLN" in k}
    assert all("norm" in key or key.startswith("camera_embedder.") for key in report.dropped)
    assert report.loaded + len(report.dropped) == len(state)


def test_the_renamed_norms_are_those_of_openlrm(oracle):
    """With the modulation for one camera merged into the norms, the planes are those of OpenLRM."""
    expected = oracle("openlrm_to_instantmesh")
    before, state = (
        expected.with_prefix(f"state.{name}.") for name in ("instantmesh_before", "openlrm")
    )
    model = nerf_like(before)
    load_state(model, state, "openlrm", source="openlrm")
    sizes = sizes_of(before)["transformer"]
    heads = {"num_heads": expected.config["transformer_heads"]}
    config = NerfLRMConfig.load({"transformer": sizes | heads}).transformer
    transformer = TriplaneTransformer(config, expected["in.image_feats"].shape[-1])
    transformer.load_state_dict(model.transformer.state_dict())
    embedding = F.silu(expected["in.camera_embedding"])[0]
    with torch.no_grad():
        for name, module in transformer.named_modules():
            key = f"transformer.{name}.mlp.1"
            if f"{key}.weight" in state:
                shift, scale = F.linear(embedding, *(state[f"{key}.{b}"] for b in KINDS)).chunk(2)
                module.bias.copy_(module.bias * (1 + scale) + shift)
                module.weight.mul_(1 + scale)
    expected.check(transformer(expected["in.image_feats"]), "out.folded_planes")


def dino_state(model, layout):
    """Return the model's encoder under the key names of another layout, with additional keys."""
    encoder_state = model.encoder.model.state_dict()
    state = {key: value for key, value in encoder_state.items() if "adaLN" not in key}
    if layout == "huggingface":
        width = TINY.encoder.width
        return state | {f"pooler.dense.{b}": torch.zeros(width) for b in KINDS}
    renamed = {
        "cls_token": state["embeddings.cls_token"],
        "pos_embed": state["embeddings.position_embeddings"],
        "head.last.weight": torch.zeros(3),
    }
    for b in KINDS:
        renamed[f"patch_embed.proj.{b}"] = state[f"embeddings.patch_embeddings.projection.{b}"]
        renamed[f"norm.{b}"] = state[f"layernorm.{b}"]
        for number in range(TINY.encoder.num_layers):
            layer, block = f"encoder.layer.{number}", f"blocks.{number}"
            parts = [f"{layer}.attention.attention.{p}.{b}" for p in ("query", "key", "value")]
            renamed[f"{block}.attn.qkv.{b}"] = torch.cat([state[part] for part in parts])
            for after, before in (
                ("attn.proj", "attention.output.dense"),
                ("mlp.fc1", "intermediate.dense"),
                ("mlp.fc2", "output.dense"),
                ("norm1", "layernorm_before"),
                ("norm2", "layernorm_after"),
            ):
                renamed[f"{block}.{after}.{b}"] = state[f"{layer}.{before}.{b}"]
    return renamed


@pytest.mark.parametrize("layout", ["huggingface", "authors"])
@pytest.mark.parametrize("cls", [NerfLRM, MeshLRM])
def test_dino_weights_initialise_only_the_encoder(layout, cls, tmp_path):
    source, model = tiny_model(seed=5), tiny_model(cls)
    for parameter in source.encoder.parameters():
        torch.nn.init.normal_(parameter)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.save(dino_state(source, layout), tmp_path / "dino.pth")
    report = load_weights(model, tmp_path / "dino.pth", "dino")
    source_state = source.state_dict()
    for key, value in model.state_dict().items():
        is_loaded = key.startswith("encoder.model.") and "adaLN" not in key
        assert torch.equal(value, (source_state if is_loaded else before)[key]), key
        assert (key in report.new) != is_loaded
    assert report.loaded + len(report.new) == len(before)
    assert report.dropped


def test_the_base_model_has_the_keys_of_dino():
    with torch.device("meta"):
        model = NerfLRM(nerf_preset("base"))
    names = {k for k in model.encoder.model.state_dict() if "adaLN" not in k}
    # Embeddings, twelve layers with separate query, key and value, and the last norm.
    assert len(names) == 4 + 12 * 16 + 2


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
@pytest.mark.parametrize("cls", [NerfLRM, MeshLRM])
def test_exported_weights_can_be_loaded_again(cls, suffix, tmp_path):
    model, loaded = tiny_model(cls), tiny_model(cls, seed=1)
    path = tmp_path / "deep" / f"model.{suffix}"
    export_weights(model, path)
    content = path.read_bytes()
    export_weights(model, path)
    assert path.read_bytes() == content  # the file does not contain its temporary name
    report = initialize(LRM_WEIGHTS, loaded, f"instantmesh:{path}")
    assert_equal(loaded, model.state_dict())
    assert (report.loaded, report.new, report.dropped) == (len(model.state_dict()), (), ())
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    if suffix == "ckpt":
        published = torch.load(path, weights_only=True)["state_dict"]
        assert all(key.startswith("lrm_generator.") for key in published)
    else:
        assert {*safetensors.torch.load_file(path)} == {*model.state_dict()}
    with pytest.raises(BadInput, match=r"written as \.ckpt or \.safetensors"):
        export_weights(model, tmp_path / "model.onnx")


def test_a_training_checkpoint_is_loaded_without_its_training_state(tmp_path, caplog):
    model, loaded = tiny_model(), tiny_model(seed=1)
    state = {f"lrm_generator.{key}": value for key, value in model.state_dict().items()}
    extra = ("lpips.net.slice1.0.weight", "lrm_generator.encoder.source_camera")
    checkpoint = {
        "epoch": 3,
        "global_step": 7,
        "state_dict": state | dict.fromkeys(extra, torch.ones(1)),
    }
    torch.save(checkpoint, tmp_path / "last.ckpt")
    with caplog.at_level(logging.INFO):
        report = load_weights(loaded, tmp_path / "last.ckpt", "instantmesh")
    assert_equal(loaded, model.state_dict())
    assert {*report.dropped} == {*extra}
    for key in extra:
        assert f"dropped {key}" in caplog.text


@pytest.mark.parametrize("kind", ["instantmesh", "openlrm", "dino"])
def test_an_unknown_missing_or_misshapen_key_is_named_and_nothing_is_loaded(kind):
    model = tiny_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    good = (
        dino_state(tiny_model(seed=2), "huggingface")
        if kind == "dino"
        else tiny_model(seed=2).state_dict()
    )
    key_of_token = next(key for key in good if key.endswith("embeddings.cls_token"))
    incomplete = {key: value for key, value in good.items() if key != key_of_token}
    for state, message in (
        (incomplete, rf"the model needs [\w.]*{key_of_token}"),
        (good | {"blocks.0.ls1.gamma": torch.ones(2)}, r"does not have [\w.]*ls1.gamma"),
        (
            good | {key_of_token: torch.ones(1, 1, 5)},
            rf"shapes differ: [\w.]*{key_of_token} \(1, 1, 5\) instead of",
        ),
    ):
        with pytest.raises(BadInput, match=message):
            load_state(model, state, kind, source="file")
    assert_equal(model, before)


def test_weights_of_stage_two_do_not_load_into_stage_one_and_many_keys_are_counted():
    mesh = tiny_model(MeshLRM).state_dict()
    with pytest.raises(BadInput, match=r"needs synthesizer.decoder.net.0.weight.* and \d+ more"):
        load_state(tiny_model(), mesh, "instantmesh", source="mesh")


class CodeOnUnpickling:
    """An object that runs code when it is unpickled."""

    def __reduce__(self):
        return print, ("ran",)


def test_an_invalid_weight_file_is_an_error_of_one_line(tmp_path, capsys):
    files = {
        name: tmp_path / name
        for name in ("code", "text", "truncated", "empty", "list", "no_tensors", "empty_state")
    }
    files["code"].write_bytes(pickle.dumps({"state_dict": CodeOnUnpickling()}, protocol=2))
    files["text"].write_text("<html>not found</html>")
    files["truncated"].write_bytes(b"half of a file")
    files["empty"].write_bytes(b"")
    torch.save([torch.ones(1)], files["list"])
    torch.save({"epoch": 3, "name": "x"}, files["no_tensors"])
    torch.save({"state_dict": {}}, files["empty_state"])
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\0" * 20)
    for path in (*files.values(), broken, tmp_path / "missing.ckpt", tmp_path / "m.safetensors"):
        with pytest.raises(BadInput, match=str(path)) as error:
            load_weights(tiny_model(), path, "instantmesh")
        assert "\n" not in str(error.value)
    assert "ran" not in capsys.readouterr().out


def test_a_source_is_kind_and_file_or_a_path():
    for source in ("openlrm.pth", "clip:file.pth", "openlrm"):
        with pytest.raises(BadInput, match=rf"{source}: no such source; give the folder of a run"):
            initialize(LRM_WEIGHTS, tiny_model(), source)
    assert absolute_source(LRM_WEIGHTS, "dino:/some/file.pth") == "dino:/some/file.pth"
    assert absolute_source(LRM_WEIGHTS, "dino:file.pth") == f"dino:{Path.cwd()}/file.pth"
    assert absolute_source(LRM_WEIGHTS, "clip:runs/nerf") == f"{Path.cwd()}/clip:runs/nerf"


def test_planes_are_equal_after_export_and_loading(tmp_path):
    model, loaded = tiny_model(), tiny_model(seed=1)
    export_weights(model, tmp_path / "a.safetensors")
    load_weights(loaded, tmp_path / "a.safetensors", "instantmesh")
    images, cameras = torch.rand(1, 2, 3, 32, 32), viewpoints(2)
    points = torch.rand(1, 9, 3)
    planes = [each.forward_planes(images, *cameras) for each in (model, loaded)]
    assert torch.equal(*(sample_planes(each, points) for each in planes))
