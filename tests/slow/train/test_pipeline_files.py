"""A pipeline of strangers is refused before it takes memory: file x what it states."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import BadInput
from tests.support.weight_bombs import BOMBS, SAFETENSORS_BOMBS, limited_memory
from train.models.zero123plus.pipeline import load_zero123plus
from train.models.zero123plus.tiny import tiny_pipeline

MORE_BYTES = 200_000_000
SECONDS = 5
UNET = "unet/diffusion_pytorch_model"
DEEP = b'{"a":' * 20_000 + b"1" + b"}" * 20_000


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny pipeline."""
    folder = tmp_path_factory.mktemp("pipeline") / "tiny"
    tiny_pipeline(0).save_pretrained(folder)
    return folder


def setting(name: str, **values: Any) -> Callable[[Path], None]:
    """Return an edit of the settings in a JSON file."""

    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return edit


def content(name: str, data: bytes) -> Callable[[Path], None]:
    """Return an edit that replaces a file."""
    return lambda folder: (folder / name).write_bytes(data) and None


def bomb(name: str, bombs: dict[str, Callable[[Path], None]], kind: str) -> Callable[[Path], None]:
    """Return an edit that replaces the weights of the UNet by a bomb."""

    def edit(folder: Path) -> None:
        (folder / f"{UNET}.safetensors").unlink()
        bombs[kind](folder / name)

    return edit


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    """Return an edit of the tensors of the UNet."""

    def edit(folder: Path) -> None:
        path = folder / f"{UNET}.safetensors"
        state = {name: value.clone() for name, value in load_file(path).items()}
        change(state)
        save_file(state, path)

    return edit


def index(*names: Any) -> Callable[[Path], None]:
    """Return an edit that splits the weights of the UNet over files of these names."""

    def edit(folder: Path) -> None:
        shutil.move(folder / f"{UNET}.safetensors", folder / "unet" / "part.safetensors")
        shards = {"weight_map": {str(n): name for n, name in enumerate(names)}}
        (folder / f"{UNET}.safetensors.index.json").write_text(json.dumps(shards))

    return edit


EDITS: dict[str, tuple[Callable[[Path], None], str]] = {
    "width": (setting("unet/config.json", block_out_channels=[10**9, 10**9]), "unet/config"),
    "width-that-fits-no-file": (
        setting("unet/config.json", block_out_channels=[8 * 10**4, 10**5]),
        "diffusion_pytorch_model.safetensors: has",
    ),
    "width-of-text": (setting("unet/config.json", cross_attention_dim="much"), "weights"),
    "layers": (setting("vision_encoder/config.json", num_hidden_layers=10**5), "vision_encoder"),
    "layers-of-layers": (
        setting("unet/config.json", layers_per_block=100, transformer_layers_per_block=[99, 99]),
        "unet/config",
    ),
    "blocks": (setting("vae/config.json", block_out_channels=[4] * 10**4), "vae/config"),
    "words": (setting("text_encoder/config.json", vocab_size=10**6), "text_encoder"),
    "no-patches": (setting("vision_encoder/config.json", patch_size=0), "weights"),
    "infinite": (setting("unet/config.json", norm_eps=float("inf")), "unet/config"),
    "timesteps": (
        setting("scheduler/scheduler_config.json", num_train_timesteps=10**12),
        "scheduler_config",
    ),
    "crop": (
        setting(
            "feature_extractor_vae/preprocessor_config.json",
            crop_size={"height": 10**6, "width": 1},
        ),
        "preprocessor_config",
    ),
    "prompt": (setting("model_index.json", ramping_coefficients=[0.5] * 10**5), "model_index"),
    "library": (setting("model_index.json", vae=["antigravity", "fly"]), "model_index"),
    "no-object": (content("unet/config.json", b"[]"), "unet/config"),
    "no-json": (content("vae/config.json", b"\0" * 100), "vae/config"),
    "nested": (content("text_encoder/config.json", DEEP), "text_encoder/config"),
    "large-text": (content("tokenizer/merges.txt", b"a b\n" * 5_000_000), "merges.txt"),
    "bin-bomb": (bomb(f"{UNET}.bin", BOMBS, "stride-0"), "pytorch_model.bin"),
    "header": (
        bomb(f"{UNET}.safetensors", SAFETENSORS_BOMBS, "header-of-90-megabytes"),
        "pytorch_model.safetensors",
    ),
    "missing-values": (weights(lambda state: state.pop("conv_in.weight")), "has"),
    "not-finite": (weights(lambda state: state["conv_in.weight"].fill_(float("nan"))), "finite"),
    "index-elsewhere": (index("../vae/diffusion_pytorch_model.safetensors"), "index.json"),
    "index-of-numbers": (index(3), "index.json"),
    "index-of-missing-files": (index("part.safetensors", "other.safetensors"), "other.safetensors"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, for tensors without values
@pytest.mark.parametrize("name", EDITS)
def test_a_pipeline_that_states_too_much_is_refused(name: str, saved: Path, tmp_path: Path):
    edit, cause = EDITS[name]
    folder = tmp_path / "pipeline"
    shutil.copytree(saved, folder)
    edit(folder)
    started = time.process_time()
    with limited_memory(MORE_BYTES), pytest.raises(BadInput) as caught:
        load_zero123plus(folder)
    assert time.process_time() - started < SECONDS
    assert cause in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_pytorch_s_format_are_still_loaded(saved: Path, tmp_path: Path):
    folder = tmp_path / "pipeline"
    shutil.copytree(saved, folder)
    state = load_file(folder / f"{UNET}.safetensors")
    torch.save(state, folder / f"{UNET}.bin")
    (folder / f"{UNET}.safetensors").unlink()
    loaded = load_zero123plus(folder).unet.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
