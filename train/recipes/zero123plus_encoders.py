"""The frozen encoders in the training of Zero123++: VAE, CLIP vision and text encoder."""

from collections.abc import Mapping, Sequence

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from jaxtyping import Bool, Float
from torch import Tensor

from train.data.latent_cache import LatentCache
from train.models.zero123plus.latents import (
    image_to_vae,
    latents_to_target,
    ramped_prompt,
    tile_views,
)
from train.models.zero123plus.pipeline import Zero123PlusPipeline

__all__ = ["Encoders"]


class Encoders:
    """The frozen parts of a pipeline, outside the trained module and its checkpoints.

    Images are encoded one by one: so the result does not depend on the rest of the batch, and one
    sheet of 960 x 640 already needs as much memory as the UNet's step.
    """

    def __init__(
        self,
        pipeline: Zero123PlusPipeline,
        *,
        unconditional_level: float,
        cache: LatentCache | None = None,
    ) -> None:
        """Freeze the parts of the pipeline.

        `unconditional_level` is the grey level, in [0, 1], of the image that replaces a dropped
        query.
        """
        self._pipeline, self._cache = pipeline, cache
        self._unconditional_level = unconditional_level
        self._scaling = float(pipeline.vae.config.scaling_factor)
        self._empty_prompt: Tensor | None = None
        self._unconditional: dict[tuple[int, ...], Tensor] = {}
        """Moments of the unconditional image by the shape of the query."""
        for part in (pipeline.vae, pipeline.vision_encoder, pipeline.text_encoder):
            part.requires_grad_(False).eval()

    @torch.no_grad()
    def encode(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the encodings of each object, from the cache or computed and stored there.

        `targets` and `condition` are the moments of VAE latents (of the target sheet and of the
        query), `embedding` is CLIP's embedding of the query.
        """
        self._move_to(batch["query"].device)
        encoded = [
            self._encode_one({k: v[i] for k, v in batch.items()})
            for i in range(len(batch["query"]))
        ]
        return {name: torch.stack([one[name] for one in encoded]) for name in encoded[0]}

    @torch.no_grad()
    def prompt(
        self, embedding: Float[Tensor, "b d"], dropped: Bool[Tensor, "b"]
    ) -> Float[Tensor, "b t d"]:
        """Return the global condition: the ramped prompt, or the empty one for a dropped query."""
        self._move_to(embedding.device)
        ramp = embedding.new_tensor(self._pipeline.config.ramping_coefficients)
        if self._empty_prompt is None or self._empty_prompt.device != embedding.device:
            self._empty_prompt = self._pipeline.empty_prompt()
        prompt = ramped_prompt(self._empty_prompt, embedding, ramp)
        return torch.where(dropped[:, None, None], self._empty_prompt, prompt)

    @torch.no_grad()
    def condition(
        self,
        moments: Float[Tensor, "b c2 hr wr"],
        dropped: Bool[Tensor, "b"],
        query: Float[Tensor, "b 3 h w"],
        generators: Sequence[torch.Generator],
    ) -> Float[Tensor, "b c hr wr"]:
        """Return samples of the condition's latents: the unconditional image's for a dropped query.

        `moments` are mean and log variance of the queries' latents.
        """
        unconditional = self._unconditional_moments(query[:1])
        moments = torch.where(dropped[:, None, None, None], unconditional, moments)
        return _sample(moments, generators)

    def targets(
        self, moments: Float[Tensor, "b c2 hs ws"], generators: Sequence[torch.Generator]
    ) -> Float[Tensor, "b c hs ws"]:
        """Return samples of the target sheet's latents, scaled as the UNet denoises them."""
        return latents_to_target(_sample(moments, generators), self._scaling)

    def _encode_one(self, one: Mapping[str, Tensor]) -> dict[str, Tensor]:
        encoded: dict[str, Tensor] = {}
        # Objects of validation have no key and are not cached.
        cache = self._cache if "key" in one else None
        if cache is not None and one["cached"]:
            encoded = {name: one[f"cached_{name}"] for name in cache.shapes}
        pipeline, dtype = self._pipeline, self._pipeline.dtype
        if "targets" not in encoded:
            encoded["targets"] = self._moments(image_to_vae(tile_views(one["views"][None])))
        if "condition" not in encoded:
            encoded["condition"] = self._moments(one["query"][None])
        if "embedding" not in encoded:
            query_clip = one["query_clip"][None].to(dtype)
            encoded["embedding"] = pipeline.vision_encoder(query_clip).image_embeds[0]
        if cache is not None and not one["cached"]:
            cache.write(one["key"], {name: encoded[name] for name in cache.shapes})
        return encoded

    def _moments(self, pixels: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "c2 hl wl"]:
        """Return mean and log variance of an image's latents."""
        return self._pipeline.vae.encode(pixels.to(self._pipeline.dtype)).latent_dist.parameters[0]

    def _unconditional_moments(self, like: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "c2 hl wl"]:
        shape, known = tuple(like.shape), self._unconditional
        if shape not in known or known[shape].device != like.device:
            pixels = self._pipeline.blank_pixels(like, self._unconditional_level)
            known[shape] = self._moments(pixels)
        return known[shape]

    def _move_to(self, device: torch.device) -> None:
        for part in (
            self._pipeline.vae,
            self._pipeline.vision_encoder,
            self._pipeline.text_encoder,
        ):
            part.to(device)


def _sample(
    moments: Float[Tensor, "b c2 h w"], generators: Sequence[torch.Generator]
) -> Float[Tensor, "b c h w"]:
    return DiagonalGaussianDistribution(moments).sample(list(generators))
