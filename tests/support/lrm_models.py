"""A tiny LRM, cameras for it, and a target to learn."""

import numpy as np
import torch

from dataset import cameras
from train.models.lrm.lrm import NerfLRMConfig

TINY = NerfLRMConfig.load(
    {
        "encoder": {
            "num_layers": 2,
            "width": 32,
            "num_heads": 2,
            "mlp_width": 64,
            "patch_size": 8,
            "position_side": 4,
        },
        "transformer": {
            "num_layers": 2,
            "width": 48,
            "num_heads": 2,
            "low_resolution": 8,
            "high_resolution": 16,
            "channels": 6,
        },
        "nerf": {"decoder_width": 16, "samples_per_ray": 16},
        "image_size": 32,
    }
)


def viewpoints(count, distance=2.6, fov=50.0):
    """Return camera_to_world and intrinsics of `count` orbit cameras, for a batch of one."""
    eyes = [cameras.orbit_eye(360 * i / count + 20, 15.0 + 5 * i, distance) for i in range(count)]
    matrices = np.stack([cameras.look_at(eye) for eye in eyes])
    intrinsics = torch.from_numpy(cameras.intrinsics_from_fov(fov)).expand(1, count, -1)
    return torch.from_numpy(matrices)[None], intrinsics


def published_keys(config):
    """Return the keys of a released stage-1 checkpoint, without the prefix `lrm_generator.`."""
    suffixes = ("weight", "bias")
    vit = "encoder.model"
    keys = {f"{vit}.embeddings.{name}" for name in ("cls_token", "position_embeddings")}
    keys |= {f"{vit}.embeddings.patch_embeddings.projection.{b}" for b in suffixes}
    in_layer = [f"attention.attention.{name}" for name in ("query", "key", "value")]
    in_layer += ["attention.output.dense", "intermediate.dense", "output.dense"]
    in_layer += ["layernorm_before", "layernorm_after", "adaLN_modulation.1"]
    for number in range(config.encoder.num_layers):
        keys |= {f"{vit}.encoder.layer.{number}.{name}.{b}" for name in in_layer for b in suffixes}
    keys |= {f"{vit}.layernorm.{b}" for b in suffixes}
    keys |= {f"encoder.camera_embedder.{i}.{b}" for i in (0, 2) for b in suffixes}
    in_block = [f"cross_attn.{name}_proj_weight" for name in "qkv"]
    in_block += ["cross_attn.out_proj.weight", "self_attn.in_proj_weight"]
    in_block += ["self_attn.out_proj.weight"]
    in_block += [f"{name}.{b}" for name in ("norm1", "norm2", "norm3") for b in suffixes]
    in_block += [f"mlp.{i}.{b}" for i in (0, 3) for b in suffixes]
    for number in range(config.transformer.num_layers):
        keys |= {f"transformer.layers.{number}.{name}" for name in in_block}
    keys |= {"transformer.pos_embed"}
    keys |= {f"transformer.{name}.{b}" for name in ("norm", "deconv") for b in suffixes}
    keys |= {f"synthesizer.decoder.net.{i}.{b}" for i in (0, 2, 4, 6) for b in suffixes}
    return keys


def red_ball(camera_to_world, intrinsics, side):
    """Return RGB on white and alpha of a red ball above the centre.

    The rays are intersected here, without the renderer that is under test.
    """
    hits = []
    for matrix, lens in zip(camera_to_world[0].numpy(), intrinsics[0].numpy(), strict=True):
        camera = cameras.Camera(camera_to_world=matrix, intrinsics=lens)
        origin, directions = cameras.rays(camera, side, side)
        offset = origin - np.array([0.0, 0.3, 0.2])
        a, b = (directions**2).sum(axis=-1), directions @ offset
        hits.append(b**2 - a * (offset @ offset - 0.5**2) > 0)
    alpha = torch.from_numpy(np.stack(hits))[None, :, None].float()
    return 1 - alpha * torch.tensor([0.1, 0.8, 0.6])[:, None, None], alpha
