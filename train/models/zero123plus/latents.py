"""Pure functions of Zero123++ v1.2: ranges of images and latents, noise, prompt, sheet of views.

`alphas_cumprod` is the scheduler's ᾱ by timestep; the published one has linear betas from 0.00085
to 0.012 over 1000 timesteps.
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
"""Rows and columns of the six views; view i is in row i // 2, column i % 2."""

# Constants of the published pipeline's code.
_LATENT_SHIFT, _LATENT_FACTOR = 0.22, 0.75
_IMAGE_FACTOR = 0.5 / 0.8


def scale_latents(latents: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Map Stable Diffusion's latents to those that are denoised: (z - 0.22) · 0.75."""
    return (latents - _LATENT_SHIFT) * _LATENT_FACTOR


def unscale_latents(latents: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Invert `scale_latents`: z / 0.75 + 0.22."""
    return latents / _LATENT_FACTOR + _LATENT_SHIFT


def scale_image(images: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Map images from [-1, 1] to the VAE's range in Zero123++, ±0.625: x · 0.5 / 0.8."""
    return images * _IMAGE_FACTOR


def unscale_image(images: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Invert `scale_image`: x / 0.5 · 0.8."""
    return images / _IMAGE_FACTOR


def image_to_vae(images: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Map images in [0, 1] to the VAE's input range: (x - 0.5) / 0.8."""
    return scale_image(images * 2 - 1)


def image_from_vae(decoded: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Map the VAE's output to images, clamped to [0, 1]."""
    return (unscale_image(decoded) / 2 + 0.5).clamp(0, 1)


def latents_to_target(encoded: Float[Tensor, "*s"], scaling_factor: float) -> Float[Tensor, "*s"]:
    """Map the VAE's latents of a sheet to those that are denoised.

    `scaling_factor` is that of the VAE's configuration. This applies to targets only: the latents
    of a condition image are used unscaled.
    """
    return scale_latents(encoded * scaling_factor)


def latents_from_target(latents: Float[Tensor, "*s"], scaling_factor: float) -> Float[Tensor, "*s"]:
    """Map denoised latents to the VAE's: the inverse of `latents_to_target`."""
    return unscale_latents(latents) / scaling_factor


def _signal_and_noise(
    alphas_cumprod: Float[Tensor, "t"], timesteps: Int[Tensor, "b"], like: Float[Tensor, "b c h w"]
) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
    """Return √ᾱ and √(1 - ᾱ) of each sample."""
    alphas = alphas_cumprod.to(like.device)[timesteps].view(-1, 1, 1, 1)
    return alphas.sqrt().to(like.dtype), (1 - alphas).sqrt().to(like.dtype)


def add_noise(
    latents: Float[Tensor, "b c h w"],
    noise: Float[Tensor, "b c h w"],
    alphas_cumprod: Float[Tensor, "t"],
    timesteps: Int[Tensor, "b"],
) -> Float[Tensor, "b c h w"]:
    """Return noised latents, √ᾱ · x + √(1 - ᾱ) · noise (DDPM).

    Targets are noised this way and, in training, condition latents.
    """
    signal_scale, noise_scale = _signal_and_noise(alphas_cumprod, timesteps, latents)
    return signal_scale * latents + noise_scale * noise


def v_target(
    latents: Float[Tensor, "b c h w"],
    noise: Float[Tensor, "b c h w"],
    alphas_cumprod: Float[Tensor, "t"],
    timesteps: Int[Tensor, "b"],
) -> Float[Tensor, "b c h w"]:
    """Return the UNet's training target v = √ᾱ · noise - √(1 - ᾱ) · x (arXiv 2202.00512)."""
    signal_scale, noise_scale = _signal_and_noise(alphas_cumprod, timesteps, latents)
    return signal_scale * noise - noise_scale * latents


def clean_from_v(
    noisy: Float[Tensor, "b c h w"],
    v: Float[Tensor, "b c h w"],
    alphas_cumprod: Float[Tensor, "t"],
    timesteps: Int[Tensor, "b"],
) -> Float[Tensor, "b c h w"]:
    """Return the clean latents of a predicted v: √ᾱ · z - √(1 - ᾱ) · v."""
    signal_scale, noise_scale = _signal_and_noise(alphas_cumprod, timesteps, noisy)
    return signal_scale * noisy - noise_scale * v


def ramped_prompt(
    empty: Float[Tensor, "1 t d"], image: Float[Tensor, "b d"], ramp: Float[Tensor, "t"]
) -> Float[Tensor, "b t d"]:
    """Return the global condition: on token i, empty prompt + ramp[i] · image embedding."""
    return empty + image[:, None, :] * ramp[:, None]


def tile_views(views: Float[Tensor, "b 6 c h w"]) -> Float[Tensor, "b c sheet_h sheet_w"]:
    """Tile six views into one sheet of 3 rows and 2 columns, row by row."""
    batch, _, channels, height, width = views.shape
    rows, columns = SHEET
    grid = views.view(batch, rows, columns, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(batch, channels, rows * height, columns * width)


def untile_views(sheet: Float[Tensor, "b c sheet_h sheet_w"]) -> Float[Tensor, "b 6 c h w"]:
    """Split a sheet into its six views: the inverse of `tile_views`."""
    batch, channels, height, width = sheet.shape
    rows, columns = SHEET
    grid = sheet.view(batch, channels, rows, height // rows, columns, width // columns)
    views = grid.permute(0, 2, 4, 1, 3, 5)
    return views.reshape(batch, rows * columns, channels, height // rows, width // columns)
