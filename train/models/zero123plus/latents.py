"""Zero123++ v1.2: the ranges of its images and latents, its noise, its prompt, its sheet of views.

Pure functions. `alphas_cumprod` is the scheduler's, ᾱ by timestep: the published one has linear
betas from 0.00085 to 0.012 over 1000 timesteps.
"""

from jaxtyping import Float, Int
from torch import Tensor

__all__ = [
    "SHEET",
    "add_noise",
    "clean_from_v",
    "image_from_vae",
    "image_to_vae",
    "latents_from_target",
    "latents_to_target",
    "ramped_prompt",
    "scale_image",
    "scale_latents",
    "tile_views",
    "unscale_image",
    "unscale_latents",
    "untile_views",
    "v_target",
]

SHEET = (3, 2)
"""Rows and columns of the six views; view i stands in row i // 2, column i % 2."""

_LATENT_SHIFT, _LATENT_FACTOR = 0.22, 0.75
_IMAGE_FACTOR = 0.5 / 0.8


def scale_latents(latents: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """(z - 0.22) · 0.75: from Stable Diffusion's latents to those that are denoised."""
    return (latents - _LATENT_SHIFT) * _LATENT_FACTOR


def unscale_latents(latents: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """z / 0.75 + 0.22: the inverse of `scale_latents`."""
    return latents / _LATENT_FACTOR + _LATENT_SHIFT


def scale_image(images: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """x · 0.5 / 0.8: from [-1, 1] to the VAE's range here, ±0.625."""
    return images * _IMAGE_FACTOR


def unscale_image(images: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """x / 0.5 · 0.8: the inverse of `scale_image`."""
    return images / _IMAGE_FACTOR


def image_to_vae(images: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """(x - 0.5) / 0.8: what the VAE encodes, from images in [0, 1]."""
    return scale_image(images * 2 - 1)


def image_from_vae(decoded: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Images in [0, 1], cut off there, from what the VAE decoded."""
    return (unscale_image(decoded) / 2 + 0.5).clamp(0, 1)


def latents_to_target(encoded: Float[Tensor, "*s"], scaling_factor: float) -> Float[Tensor, "*s"]:
    """The latents that are denoised, from the VAE's of a sheet; `scaling_factor` is the VAE's.

    For targets only: the latents of a condition image are used as the VAE gives them.
    """
    return scale_latents(encoded * scaling_factor)


def latents_from_target(latents: Float[Tensor, "*s"], scaling_factor: float) -> Float[Tensor, "*s"]:
    """What the VAE decodes: the inverse of `latents_to_target`."""
    return unscale_latents(latents) / scaling_factor


def _signal_and_noise(
    alphas_cumprod: Float[Tensor, "t"], timesteps: Int[Tensor, "b"], like: Float[Tensor, "b c h w"]
) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
    """√ᾱ and √(1 - ᾱ) of each sample."""
    alphas = alphas_cumprod.to(like.device)[timesteps].view(-1, 1, 1, 1)
    return alphas.sqrt().to(like.dtype), (1 - alphas).sqrt().to(like.dtype)


def add_noise(
    latents: Float[Tensor, "b c h w"],
    noise: Float[Tensor, "b c h w"],
    alphas_cumprod: Float[Tensor, "t"],
    timesteps: Int[Tensor, "b"],
) -> Float[Tensor, "b c h w"]:
    """√ᾱ · x + √(1 - ᾱ) · noise, for targets and, in training, for the condition (DDPM)."""
    signal, share = _signal_and_noise(alphas_cumprod, timesteps, latents)
    return signal * latents + share * noise


def v_target(
    latents: Float[Tensor, "b c h w"],
    noise: Float[Tensor, "b c h w"],
    alphas_cumprod: Float[Tensor, "t"],
    timesteps: Int[Tensor, "b"],
) -> Float[Tensor, "b c h w"]:
    """√ᾱ · noise - √(1 - ᾱ) · x: what the UNet learns to give (arXiv 2202.00512)."""
    signal, share = _signal_and_noise(alphas_cumprod, timesteps, latents)
    return signal * noise - share * latents


def clean_from_v(
    noisy: Float[Tensor, "b c h w"],
    v: Float[Tensor, "b c h w"],
    alphas_cumprod: Float[Tensor, "t"],
    timesteps: Int[Tensor, "b"],
) -> Float[Tensor, "b c h w"]:
    """√ᾱ · z - √(1 - ᾱ) · v: the clean latents that a predicted v means."""
    signal, share = _signal_and_noise(alphas_cumprod, timesteps, noisy)
    return signal * noisy - share * v


def ramped_prompt(
    empty: Float[Tensor, "1 t d"], image: Float[Tensor, "b d"], ramp: Float[Tensor, "t"]
) -> Float[Tensor, "b t d"]:
    """The global condition: the empty prompt, and on token i the image's embedding · ramp[i]."""
    return empty + image[:, None, :] * ramp[:, None]


def tile_views(views: Float[Tensor, "b 6 c h w"]) -> Float[Tensor, "b c sheet_h sheet_w"]:
    """Six views as one sheet of 3 rows and 2 columns, row by row."""
    batch, _, channels, height, width = views.shape
    rows, columns = SHEET
    grid = views.view(batch, rows, columns, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(batch, channels, rows * height, columns * width)


def untile_views(sheet: Float[Tensor, "b c sheet_h sheet_w"]) -> Float[Tensor, "b 6 c h w"]:
    """The six views of a sheet: the inverse of `tile_views`."""
    batch, channels, height, width = sheet.shape
    rows, columns = SHEET
    grid = sheet.view(batch, channels, rows, height // rows, columns, width // columns)
    views = grid.permute(0, 2, 4, 1, 3, 5)
    return views.reshape(batch, rows * columns, channels, height // rows, width // columns)
