"""A Zero123++ pipeline with small networks and random weights, for tests and demos."""

import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from train.models.zero123plus.pipeline import Zero123PlusPipeline

__all__ = ["tiny_pipeline"]

_TOKENS, _WIDTH, _QUERY_SIZE, _CLIP_SIZE = 8, 32, 16, 28


def tiny_pipeline(seed: int) -> Zero123PlusPipeline:
    """Return a pipeline with all parts of the published one and 0.3M weights drawn with the seed.

    A latent is 2 pixels wide. Query images are resized to 16 x 16 for the VAE and to 28 x 28 for
    CLIP; the prompt has 8 tokens of width 32.
    """
    tokenizer = _tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Zero123PlusPipeline(
            vae=_vae(),
            text_encoder=_text_encoder(tokenizer),
            tokenizer=tokenizer,
            unet=_unet(),
            scheduler=_scheduler(),
            vision_encoder=_vision_encoder(),
            feature_extractor_clip=CLIPImageProcessor(
                size={"shortest_edge": _CLIP_SIZE},
                crop_size={"height": _CLIP_SIZE, "width": _CLIP_SIZE},
            ),
            feature_extractor_vae=CLIPImageProcessor(
                size={"shortest_edge": _QUERY_SIZE},
                crop_size={"height": _QUERY_SIZE, "width": _QUERY_SIZE},
                image_mean=0.5,
                image_std=0.8,
                resample=2,
            ),
            ramping_coefficients=[token / _TOKENS for token in range(_TOKENS)],
        )


def _tokenizer() -> CLIPTokenizer:
    """Return CLIP's byte-pair tokenizer with every byte, and one word made by merging."""
    letters = sorted(ByteLevel.alphabet())
    ends = [letter + "</w>" for letter in letters]
    merges = [("o", "b"), ("ob", "j</w>")]
    words = [*letters, *ends, *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    sizes = {"model_max_length": _TOKENS, "pad_token": "!"}  # the padding of Stable Diffusion 2
    return CLIPTokenizer(vocab=vocabulary, merges=merges, **sizes)


def _text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=_WIDTH,
            intermediate_size=2 * _WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=_TOKENS,
            projection_dim=_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()


def _vision_encoder() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=_WIDTH,
            intermediate_size=2 * _WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=_CLIP_SIZE,
            patch_size=14,
            projection_dim=_WIDTH,
        )
    ).eval()


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=_QUERY_SIZE,
    ).eval()


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=_WIDTH,
        attention_head_dim=(2, 4),  # the number of heads, as in Stable Diffusion 2
        norm_num_groups=8,
        use_linear_projection=True,
    ).eval()


def _scheduler() -> EulerAncestralDiscreteScheduler:
    """Return a scheduler with the published noise schedule."""
    return EulerAncestralDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        prediction_type="v_prediction",
        steps_offset=1,
    )
