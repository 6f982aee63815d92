"""Conversion of DINO ViT's state-dict keys, in Hugging Face's or the authors' form, to ours."""

import re

from torch import Tensor

__all__ = ["from_dino"]

_PREFIX = "encoder.model."
_AUTHORS = (
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.(\d+)\.norm1\.", r"encoder.layer.\1.layernorm_before."),
    (r"^blocks\.(\d+)\.norm2\.", r"encoder.layer.\1.layernorm_after."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layer.\1.attention.output.dense."),
    (r"^blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1.intermediate.dense."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1.output.dense."),
)
_JOINT = re.compile(r"^blocks\.(\d+)\.attn\.qkv\.(weight|bias)$")
"""Key of a tensor that holds query, key and value."""
_HEADS = ("pooler.", "head.")
"""Prefixes of the layers after the tokens, which are not used here."""


def from_dino(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    """Return the encoder's tensors under our keys, old -> new keys, and the dropped keys.

    Keys that are not DINO's are kept behind our prefix, so that the caller rejects them.
    """
    tensors: dict[str, Tensor] = {}
    renamed: dict[str, str] = {}
    dropped = []
    for key, value in state.items():
        name = key.removeprefix("vit.").removeprefix("backbone.")
        if name.startswith(_HEADS):
            dropped.append(key)
        elif joint := _JOINT.match(name):
            layer = f"{_PREFIX}encoder.layer.{joint[1]}.attention.attention"
            for part, tensor in zip(("query", "key", "value"), value.chunk(3), strict=True):
                tensors[f"{layer}.{part}.{joint[2]}"] = tensor
            renamed[key] = f"{layer}.(query, key and value).{joint[2]}"
        else:
            for pattern, replacement in _AUTHORS:
                name = re.sub(pattern, replacement, name)
            tensors[_PREFIX + name] = value
            renamed[key] = _PREFIX + name
    return tensors, renamed, dropped
