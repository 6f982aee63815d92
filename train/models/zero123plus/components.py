"""Settings of the parts of a Zero123++ pipeline, and its networks without weights.

They are used to estimate the size of a run, and for dry runs.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    EulerAncestralDiscreteScheduler,
    UNet2DConditionModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)
from transformers.image_processing_utils import BaseImageProcessor

from core.errors import BadInput, first_line
from train.models.zero123plus.pipeline_files import check_settings, check_weights, local_folder

__all__ = [
    "EXTRACTORS",
    "PUBLISHED",
    "Settings",
    "checked_folder",
    "meta_networks",
    "part_configs",
    "pipeline_settings",
    "pixels_per_latent",
    "weights_error",
]

Settings = Mapping[str, Mapping[str, Any]]
"""Configuration of each part of a pipeline, by the part's name."""
EXTRACTORS = ("feature_extractor_vae", "feature_extractor_clip")

PUBLISHED: Settings = {
    # Stable Diffusion 2 at 768 pixels, whose text encoder is OpenCLIP's ViT-H/14.
    "unet": {
        "block_out_channels": (320, 640, 1280, 1280),
        "attention_head_dim": (5, 10, 20, 20),
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
        "sample_size": 96,
    },
    "vae": {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": 768,
    },
    "scheduler": {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "linear",
        "prediction_type": "v_prediction",
    },
    "vision_encoder": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
        "projection_dim": 1024,
        "hidden_act": "gelu",
    },
    "feature_extractor_vae": {
        "size": {"shortest_edge": 512},
        "crop_size": {"height": 512, "width": 512},
        "image_mean": 0.5,
        "image_std": 0.8,
    },
    "feature_extractor_clip": {},  # CLIP's defaults
    "text_encoder": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "max_position_embeddings": 77,
        "hidden_act": "gelu",
    },
}
"""Settings of the published Zero123++ v1.2."""


def part_configs(source: str | Path) -> Settings:
    """Read the settings of a pipeline in a local folder or the hub's cache, without its weights.

    Raises BadInput if a part is missing or unreadable.
    """
    options: dict[str, Any] = {"local_files_only": True}
    folder = local_folder(source)
    check_settings(folder)
    name = str(folder if folder.exists() else source)
    classes = {
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "scheduler": EulerAncestralDiscreteScheduler,
    }
    encoders = {"vision_encoder": CLIPVisionConfig, "text_encoder": CLIPTextConfig}
    settings: dict[str, Mapping[str, Any]] = {}
    part = "pipeline"
    with warnings.catch_warnings():
        # diffusers passes an argument that huggingface_hub has deprecated.
        warnings.simplefilter("ignore", UserWarning)
        try:
            DiffusionPipeline.load_config(name, **options)
            for part, model_class in classes.items():
                settings[part] = model_class.load_config(name, subfolder=part, **options)
            for part, config_class in encoders.items():
                config = config_class.from_pretrained(name, subfolder=part, **options)
                settings[part] = config.to_dict()
            for part in EXTRACTORS:
                read = BaseImageProcessor.get_image_processor_dict
                settings[part], _ = read(name, subfolder=part, **options)
        except Exception as error:  # the libraries raise any error for odd settings
            raise weights_error(f"{source}, {part}", error) from error
    return settings


def checked_folder(source: str | Path) -> Path:
    """Return the folder of a pipeline whose settings describe the networks of its weights.

    Raises BadInput if the settings are beyond any model's, or weights are missing.
    """
    folder, settings = local_folder(source), part_configs(source)
    try:
        networks = meta_networks(settings)
    except Exception as error:  # the libraries raise any error for odd settings
        raise weights_error(source, error) from error
    check_weights(folder, networks)
    return folder


def pipeline_settings(pipeline: DiffusionPipeline) -> Settings:
    """Return the settings of a loaded pipeline."""
    settings: dict[str, Mapping[str, Any]] = {
        part: dict(pipeline.components[part].config) for part in ("unet", "vae", "scheduler")
    }
    for part in ("vision_encoder", "text_encoder"):
        settings[part] = pipeline.components[part].config.to_dict()
    return settings | {part: pipeline.components[part].to_dict() for part in EXTRACTORS}


def meta_networks(settings: Settings) -> dict[str, nn.Module]:
    """Return the networks on the meta device: tensors have shapes and no data."""
    with torch.device("meta"):
        return {
            "unet": UNet2DConditionModel.from_config(settings["unet"]),
            "vae": AutoencoderKL.from_config(settings["vae"]),
            "vision_encoder": CLIPVisionModelWithProjection(
                CLIPVisionConfig(**settings["vision_encoder"])
            ),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**settings["text_encoder"])),
        }


def pixels_per_latent(vae: Mapping[str, Any]) -> int:
    """Return the width of a latent in pixels for a VAE's settings: 8 for Stable Diffusion's."""
    return 2 ** (len(vae["block_out_channels"]) - 1)


def weights_error(source: str | Path, error: Exception) -> BadInput:
    """Return the error of a pipeline that cannot be read, with one line that says what to do."""
    return BadInput(
        f"Zero123++ weights {source}: {first_line(error)} Give a folder in diffusers' layout (it "
        "has a model_index.json), or first download the repository into the hub's cache"
    )
