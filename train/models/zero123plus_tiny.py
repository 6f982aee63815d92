"""A Zero123++ pipeline of real parts in small sizes, with random weights: for tests and demos."""

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPImageProcessor,
    CLIPTokenizer,
)

from train.models.zero123plus import Zero123PlusPipeline

__all__ = ["tiny_pipeline"]

_TOKENS, _WIDTH, _QUERY_SIZE, _CLIP_SIZE = 8, 32, 16, 28


def tiny_pipeline(seed: int) -> Zero123PlusPipeline:
    """All parts of the real one, 0.3M weights drawn with the seed; a latent is 2 pixels wide.

    Query images come to 16 x 16, CLIP's to 28 x 28; the prompt has 8 tokens of width 32.
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
    """CLIP's byte-pair encoding with every byte, and one word made by merging."""
    letters = sorted(ByteLevel.alphabet())
    ends = [letter + "</w>" for letter in letters]
    merges = [("o", "b"), ("ob", "j</w>")]
    words = [*letters, *ends, *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=_TOKENS)
    tokenizer.pad_token = "!"  # as in Stable Diffusion 2
    return tokenizer
