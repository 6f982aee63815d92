"""The files of a Zero123++ pipeline: where they are, and limits on what they state.

diffusers and transformers allocate what a configuration states before they look at the weights. So
sizes are checked first: a network is built without memory, and its weights must be in the files.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.errors import BadInput
from train.models.weight_files.state_dicts import read_state

__all__ = ["INDEX", "check_finite", "check_settings", "check_weights", "local_folder"]

INDEX = "model_index.json"
"""The file that makes a folder a pipeline of diffusers."""
_LIBRARIES = ("diffusers", "transformers")
"""Libraries whose classes a pipeline may name; others would be imported, and so run."""
_MAX_TEXT_BYTES = 16_000_000
"""Largest file in bytes that holds settings or words; the published vocabulary has 1,100,000."""
_MAX_NUMBER = 1_000_000
"""Largest number in the settings of a network or scheduler; the published have 49,408."""
_MAX_SIDE = 4096
"""Largest number in the settings of an image processor: a side in pixels."""
_MAX_ITEMS = 64
"""Longest list in the settings of a network."""
_MAX_LAYERS = 2048
"""Most layers of a network, as a product of the numbers of layers and blocks."""
_MAX_TOKENS = 1024
"""Longest prompt; the published one has 77 tokens."""
_NETWORKS: Mapping[str, tuple[str, str]] = {
    "unet": ("diffusion_pytorch_model", "diffusion_pytorch_model"),
    "vae": ("diffusion_pytorch_model", "diffusion_pytorch_model"),
    "vision_encoder": ("model", "pytorch_model"),
    "text_encoder": ("model", "pytorch_model"),
}
"""Names of a network's weights as .safetensors and as .bin."""
_OTHERS = (
    "scheduler/scheduler_config.json",
    "feature_extractor_vae/preprocessor_config.json",
    "feature_extractor_clip/preprocessor_config.json",
)


def local_folder(source: str | Path) -> Path:
    """Return the folder of a pipeline: the given one, or that of a repository's cached commit.

    If there is neither, the given path is returned.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    folder = Path(source).expanduser()
    if folder.exists():
        return folder
    try:
        index = try_to_load_from_cache(str(source), INDEX)
    except HFValidationError:
        return folder
    return Path(index).parent if isinstance(index, str) else folder


def check_settings(folder: Path) -> None:
    """Raise BadInput if the settings of a pipeline's parts are damaged or beyond any model's.

    Missing files are not reported here.
    """
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        if path.suffix not in (".json", ".txt"):
            continue
        if not path.is_file() or path.stat().st_size > _MAX_TEXT_BYTES:
            raise BadInput(f"{path}: is not a file of at most {_MAX_TEXT_BYTES} bytes")
    _check_index(folder / INDEX)
    for part in _NETWORKS:
        path = folder / part / "config.json"
        values = _read_object(path)
        _check_numbers(path, values, _MAX_NUMBER)
        _check_layers(path, values)
    for name in _OTHERS:
        path = folder / name
        limit = _MAX_NUMBER if name.startswith("scheduler/") else _MAX_SIDE
        _check_numbers(path, _read_object(path), limit)


def check_weights(folder: Path, networks: Mapping[str, nn.Module]) -> None:
    """Raise BadInput if the files of a network have fewer values than it needs.

    The networks may be on the meta device. A network without any file is not reported here.
    """
    for part, network in networks.items():
        needed = sum(parameter.numel() for parameter in network.parameters())
        for path, files in _weight_files(folder / part, *_NETWORKS[part]):
            present = sum(
                value.numel() for file in files for value in read_state(file, ()).values()
            )
            if present < needed:
                raise BadInput(
                    f"{path}: has {present} values, but the network that {part}/config.json "
                    f"describes needs {needed}; use the files that came with each other"
                )


def check_finite(source: str | Path, parts: Mapping[str, Any]) -> None:
    """Raise BadInput if a network among the parts of a loaded pipeline has an infinite value."""
    for part in _NETWORKS:
        for name, value in parts[part].named_parameters():
            if not torch.isfinite(value).all():
                raise BadInput(
                    f"Zero123++ weights {source}: values of {part} ({name}) are not finite; give "
                    "other weights"
                )


def _weight_files(folder: Path, safetensors: str, pickled: str) -> Iterator[tuple[Path, set[Path]]]:
    """Yield each file or index of weights that is present, and the files that it consists of."""
    for name in (f"{safetensors}.safetensors", f"{pickled}.bin"):
        path, index = folder / name, folder / f"{name}.index.json"
        if path.exists():
            yield path, {path}
        if index.exists():
            names = _read_object(index).get("weight_map")
            if not isinstance(names, dict) or not all(map(_is_plain, names.values())):
                raise BadInput(f"{index}: has no map from weights to files of this folder")
            yield index, {folder / name for name in names.values()}


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and re.fullmatch(r"\w[\w.-]*\.(safetensors|bin)", name) is not None


def _read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if there is no file."""
    try:
        values = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise BadInput(f"{path}: is not a JSON object; use the file that came with the weights")
    return values


def _check_index(path: Path) -> None:
    values = _read_object(path)
    for name, value in values.items():
        if isinstance(value, list) and name in (*_NETWORKS, "scheduler", "tokenizer"):
            library = value[0] if value else None
            if library not in _LIBRARIES:
                raise BadInput(
                    f"{path}: {name} is of the library {library!r}; only "
                    f"{' and '.join(_LIBRARIES)} are used"
                )
    ramp = values.get("ramping_coefficients")
    if isinstance(ramp, list) and len(ramp) > _MAX_TOKENS:
        raise BadInput(f"{path}: has {len(ramp)} ramping_coefficients, more than {_MAX_TOKENS}")


def _check_numbers(path: Path, values: Mapping[str, Any], limit: float) -> None:
    """Raise BadInput for a number beyond a limit, anywhere in the values."""
    for name, value in _leaves(values):
        if isinstance(value, int | float) and not abs(value) <= limit:
            raise BadInput(f"{path}: {name} {value} is out of range (at most {limit:g})")


def _check_layers(path: Path, values: Mapping[str, Any]) -> None:
    """Raise BadInput for more layers than any model has: even without memory each takes time."""
    counts: dict[str, float] = {}
    for name, value in _leaves(values):
        if "layers" in name and isinstance(value, int | float):
            counts[name] = max(value, counts.get(name, 1))
    lists = [value for value in values.values() if isinstance(value, list)]
    longest = max((len(value) for value in lists), default=1)
    product = float(longest)
    for count in counts.values():
        product *= count
    if longest > _MAX_ITEMS or product > _MAX_LAYERS:
        raise BadInput(f"{path}: describes a network of {product:g} layers, which no model has")


def _leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the values inside nested objects and lists, each with the name next to it."""
    pending: list[tuple[str, Any]] = list(values.items())
    while pending:
        name, value = pending.pop()
        if isinstance(value, dict):
            pending += value.items()
        elif isinstance(value, list):
            pending += ((name, item) for item in value)
        else:
            yield name, value
