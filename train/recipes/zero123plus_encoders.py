"""What is frozen in the training of Zero123++: VAE and CLIP, and what they make of a batch."""

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

    Pictures are encoded one by one: no number depends on what an object shares a batch with, and a
    sheet of 960 x 640 takes as much memory as the UNet's step.
    """

    def __init__(
        self, pipeline: Zero123PlusPipeline, *, blank: float, cache: LatentCache | None = None
    ) -> None:
        """`blank` is the grey level, in [0, 1], of the picture in place of a dropped query."""
        self._pipeline, self._cache = pipeline, cache
        self._blank = blank
        self._scaling = float(pipeline.vae.config.scaling_factor)
        self._empty: Tensor | None = None
        self._unseen: dict[tuple[int, ...], Tensor] = {}
        for part in (pipeline.vae, pipeline.vision_encoder, pipeline.text_encoder):
            part.requires_grad_(False).eval()

    @torch.no_grad()
    def encode(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of each object: `targets` and `condition`, the moments of their VAE latents, and
        `embedding`, CLIP's of the query. Read from the cache, or else made and kept there.
        """
        self._go_to(batch["query"].device)
        each = [
            self._encode_one({k: v[i] for k, v in batch.items()})
            for i in range(len(batch["query"]))
        ]
        return {name: torch.stack([one[name] for one in each]) for name in each[0]}

    @torch.no_grad()
    def prompt(
        self, embedding: Float[Tensor, "b d"], dropped: Bool[Tensor, "b"]
    ) -> Float[Tensor, "b t d"]:
        """The global condition: the ramped prompt, or the empty one where the query is dropped."""
        self._go_to(embedding.device)
        ramp = embedding.new_tensor(self._pipeline.config.ramping_coefficients)
        if self._empty is None or self._empty.device != embedding.device:
            self._empty = self._pipeline.empty_prompt()
        prompt = ramped_prompt(self._empty, embedding, ramp)
        return torch.where(dropped[:, None, None], self._empty, prompt)

    @torch.no_grad()
    def condition(
        self,
        moments: Float[Tensor, "b c2 hr wr"],
        dropped: Bool[Tensor, "b"],
        query: Float[Tensor, "b 3 h w"],
        generators: Sequence[torch.Generator],
    ) -> Float[Tensor, "b c hr wr"]:
        """Samples of the condition's latents; of a blank picture's where the query is dropped."""
        unseen = self._blank_moments(query[:1])
        return _sample(torch.where(dropped[:, None, None, None], unseen, moments), generators)

    def targets(
        self, moments: Float[Tensor, "b c2 hs ws"], generators: Sequence[torch.Generator]
    ) -> Float[Tensor, "b c hs ws"]:
        """Samples of the latents that are denoised."""
        return latents_to_target(_sample(moments, generators), self._scaling)

    def _encode_one(self, one: Mapping[str, Tensor]) -> dict[str, Tensor]:
        held: dict[str, Tensor] = {}
        # Validation's objects are not kept: they come without a key.
        cache = self._cache if "key" in one else None
        if cache is not None and one["cached"]:
            held = {name: one[f"cached_{name}"] for name in cache.shapes}
        pipeline, dtype = self._pipeline, self._pipeline.dtype
        if "targets" not in held:
            held["targets"] = self._moments(image_to_vae(tile_views(one["views"][None])))
        if "condition" not in held:
            held["condition"] = self._moments(one["query"][None])
        if "embedding" not in held:
            seen = one["query_clip"][None].to(dtype)
            held["embedding"] = pipeline.vision_encoder(seen).image_embeds[0]
        if cache is not None and not one["cached"]:
            cache.write(one["key"], {name: held[name] for name in cache.shapes})
        return held

    def _moments(self, pixels: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "c2 hl wl"]:
        """Mean and log variance of a picture's latents."""
        return self._pipeline.vae.encode(pixels.to(self._pipeline.dtype)).latent_dist.parameters[0]

    def _blank_moments(self, like: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "c2 hl wl"]:
        shape = tuple(like.shape)
        if shape not in self._unseen or self._unseen[shape].device != like.device:
            self._unseen[shape] = self._moments(self._pipeline.blank_pixels(like, self._blank))
        return self._unseen[shape]

    def _go_to(self, device: torch.device) -> None:
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
