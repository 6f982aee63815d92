"""Drawing of textures for the demo source: colours, text, and patterns from seeded noise."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "BLUE",
    "CREAM",
    "GOLD",
    "INK",
    "RED",
    "TEAL",
    "Colour",
    "canvas",
    "mottled",
    "stripes",
    "wood",
    "write",
]

Colour = tuple[int, int, int]

CREAM, INK, RED = (244, 234, 212), (46, 42, 54), (196, 52, 44)
BLUE, TEAL, GOLD = (40, 84, 150), (24, 128, 128), (230, 170, 50)


def canvas(colour: Colour, width: int = 512, height: int = 512) -> Image.Image:
    """Return an image of one colour."""
    return Image.new("RGB", (width, height), colour)


def write(
    image: Image.Image, text: str, at: tuple[float, float], size: int, colour: Colour
) -> None:
    """Draw text centred on a point, in place."""
    font = ImageFont.load_default(size)
    ImageDraw.Draw(image).text(at, text, fill=colour, font=font, anchor="mm")


def mottled(image: Image.Image, seed: int, strength: float, blur: float = 2.0) -> Image.Image:
    """Return the image with its brightness varied by smooth noise that tiles horizontally."""
    noise = np.random.default_rng(seed).normal(size=(image.height, image.width))
    spectrum = np.fft.rfft2(noise)
    fy = np.fft.fftfreq(image.height)[:, None]
    fx = np.fft.rfftfreq(image.width)[None]
    smooth = np.fft.irfft2(
        spectrum * np.exp(-((fx**2 + fy**2) * (math.pi * blur) ** 2)), noise.shape
    )
    factor = 1 + strength * np.clip(smooth / smooth.std(), -2, 2)
    pixels = np.asarray(image, dtype=float) * factor[..., None]
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def wood(
    light: Colour, dark: Colour, seed: int, width: int = 256, height: int = 256
) -> Image.Image:
    """Return a wood texture with vertical grain."""
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 1, width)[None]
    y = np.linspace(0, 1, height)[:, None]
    bend = 0.05 * np.sin(2 * np.pi * (y * 1.5 + rng.random())) + 0.02 * np.sin(9 * y)
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (9 * (x + bend) + 0.8 * np.sin(5 * x + 2 * y)))
    mix = (0.75 * rings + 0.25 * rng.random((1, width)))[..., None]
    pixels = np.array(light) * (1 - mix) + np.array(dark) * mix
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def stripes(a: Colour, b: Colour, count: int, seed: int) -> Image.Image:
    """Return horizontal stripes of two colours, `count` of each."""
    pixels = np.empty((256, 256, 3), dtype=np.uint8)
    odd = (np.arange(256) * 2 * count // 256) % 2 == 1
    pixels[~odd], pixels[odd] = a, b
    return mottled(Image.fromarray(pixels), seed, 0.05, 1.5)
