"""The textures of the demo source; their letters and digits make mirroring visible."""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from pipelines.demo.demo_paint import (
    BLUE,
    CREAM,
    GOLD,
    INK,
    RED,
    TEAL,
    Colour,
    canvas,
    mottled,
    stripes,
    wood,
    write,
)

__all__ = ["TEXTURES"]


def _mug() -> Image.Image:
    image = canvas((52, 110, 160), 512, 256)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 150, 512, 256), fill=(38, 88, 70))
    for x, top, half in ((60, 60, 90), (190, 90, 80), (330, 40, 120), (470, 80, 90)):
        draw.polygon([(x - half, 160), (x, top), (x + half, 160)], fill=(86, 96, 118))
        snow = [(x - half * 0.3, top + (160 - top) * 0.3), (x, top)]
        draw.polygon([*snow, (x + half * 0.3, top + (160 - top) * 0.3)], fill=(240, 244, 250))
    draw.ellipse((232, 24, 276, 68), fill=(250, 214, 92))
    for x in range(8, 512, 26):
        y = 170 + (x * 37) % 40
        draw.polygon([(x - 10, y + 34), (x, y), (x + 10, y + 34)], fill=(20, 58, 44))
    write(image, "ALPES", (384, 206), 52, CREAM)
    draw.rectangle((0, 0, 512, 12), fill=CREAM)
    draw.rectangle((0, 244, 512, 256), fill=CREAM)
    return mottled(image, 1, 0.02)


def _vase() -> Image.Image:
    image = canvas((202, 104, 52))
    draw = ImageDraw.Draw(image)
    for top in (40, 330):
        draw.rectangle((0, top, 512, top + 56), fill=INK)
        for x in range(0, 512, 64):
            key = [(x + 6, top + 46), (x + 6, top + 10), (x + 52, top + 10), (x + 52, top + 38)]
            draw.line([*key, (x + 24, top + 38), (x + 24, top + 24)], fill=(226, 150, 84), width=6)
    for x in range(16, 512, 32):
        draw.polygon([(x - 14, 510), (x, 420), (x + 14, 510)], fill=INK)
    for x, flip in ((128, 1), (384, -1)):
        draw.ellipse((x - 70, 165, x + 70, 265), fill=INK)
        fish = [(x + flip * 60, 215), (x + flip * 116, 170), (x + flip * 100, 262)]
        draw.polygon(fish, fill=INK)
        draw.ellipse((x - flip * 44 - 9, 192, x - flip * 44 + 9, 210), fill=(226, 150, 84))
        for k in range(3):
            arc = (x - 34 + 24 * k, 180, x + 6 + 24 * k, 250)
            draw.arc(arc, 90, 270, fill=(226, 150, 84), width=4)
    write(image, "KPHTH", (256, 300), 36, INK)
    write(image, "A", (0, 215), 60, INK)
    write(image, "A", (512, 215), 60, INK)
    return mottled(image, 2, 0.04, 4)


def _die() -> Image.Image:
    image = canvas(CREAM, 768, 512)
    colours = (RED, BLUE, TEAL, (120, 60, 140), GOLD, (60, 120, 50))
    for number in range(6):
        x, y = 256 * (number % 3), 256 * (number // 3)
        draw = ImageDraw.Draw(image)
        draw.rounded_rectangle(
            (x + 18, y + 18, x + 238, y + 238), 36, outline=colours[number], width=8
        )
        write(image, str(number + 1), (x + 128, y + 122), 170, colours[number])
        draw.rectangle((x + 96, y + 212, x + 160, y + 220), fill=colours[number])
    return mottled(image, 3, 0.015)


def _chair_back() -> Image.Image:
    image = wood((206, 150, 92), (170, 112, 62), 4)
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((20, 20, 236, 236), 24, outline=(92, 54, 28), width=6)
    write(image, "R", (128, 124), 170, (92, 54, 28))
    return image


def _plaid() -> Image.Image:
    pixels = np.full((256, 256, 3), (150, 34, 44), dtype=float)
    for at, wide, colour in (
        (20, 36, (24, 60, 48)),
        (84, 10, (236, 220, 170)),
        (150, 44, (24, 60, 48)),
        (226, 6, (20, 20, 30)),
    ):
        band = np.zeros((256, 256, 1))
        band[at : at + wide] += 0.5
        band[:, at : at + wide] += 0.5
        pixels = pixels * (1 - band * 0.8) + np.array(colour) * band * 0.8
    return mottled(Image.fromarray(np.rint(pixels).astype(np.uint8)), 5, 0.05, 1)


def _rocket() -> Image.Image:
    image = canvas((232, 232, 236))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 512, 110), fill=RED)
    for row in range(2):
        for k in range(16):
            if (k + row) % 2:
                draw.rectangle((32 * k, 396 + 32 * row, 32 * k + 31, 427 + 32 * row), fill=INK)
    for y in (110, 200, 388, 464):
        draw.line((0, y, 512, y), fill=(150, 152, 162), width=4)
    for x in range(0, 512, 16):
        draw.ellipse((x + 6, 116, x + 10, 120), fill=(130, 132, 142))
    for x, colour in ((384, BLUE), (128, (96, 180, 220))):
        draw.ellipse((x - 44, 196, x + 44, 284), fill=(120, 124, 136))
        draw.ellipse((x - 33, 207, x + 33, 273), fill=colour)
        draw.ellipse((x - 20, 216, x - 2, 234), fill=(235, 245, 255))
    write(image, "LRM-7", (384, 340), 66, BLUE)
    write(image, "2", (128, 340), 90, RED)
    return mottled(image, 6, 0.015)


def _beetle() -> Image.Image:
    image = canvas((236, 190, 40), 256, 128)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 100, 256, 128), fill=INK)
    draw.rectangle((190, 0, 194, 128), fill=INK)
    for x, y in ((20, 40), (70, 70), (120, 36), (168, 66), (216, 40), (244, 78)):
        draw.ellipse((x - 10, y - 10, x + 10, y + 10), fill=INK)
    return image


def _fin(colour: Colour) -> Image.Image:
    image = canvas(colour, 256, 256)
    draw = ImageDraw.Draw(image)
    for k in range(-4, 8, 2):
        draw.polygon(
            [(32 * k, 256), (32 * k + 32, 256), (32 * k + 288, 0), (32 * k + 256, 0)], fill=GOLD
        )
    return mottled(image, 7, 0.02)


def _cap() -> Image.Image:
    image = canvas((190, 32, 30))
    draw = ImageDraw.Draw(image)
    rng = np.random.default_rng(8)
    for x in range(0, 512, 64):
        for row, y in enumerate((90, 200, 300)):
            at = x + 32 * (row % 2) + rng.uniform(-8, 8), y + rng.uniform(-14, 14)
            r = rng.uniform(14, 24)
            for shift in (-512, 0, 512):
                box = (at[0] + shift - r * 1.2, at[1] - r, at[0] + shift + r * 1.2, at[1] + r)
                draw.ellipse(box, fill=(250, 244, 232))
    draw.rectangle((0, 372, 512, 512), fill=(240, 224, 192))
    for x in range(0, 512, 8):
        draw.line((x, 376, x, 512), fill=(206, 182, 146), width=2)
    return mottled(image, 9, 0.04, 3)


def _stem() -> Image.Image:
    image = canvas((238, 226, 200), 256, 256)
    draw = ImageDraw.Draw(image)
    for x in range(0, 256, 12):
        draw.line((x, 0, x + 6, 256), fill=(214, 196, 164), width=3)
    draw.rectangle((0, 190, 256, 256), fill=(110, 140, 60))
    for x in range(0, 256, 10):
        draw.polygon([(x - 8, 195), (x, 150 + (x * 7) % 30), (x + 8, 195)], fill=(84, 120, 48))
    return mottled(image, 10, 0.04, 2)


def _snow_face() -> Image.Image:
    image = canvas((240, 244, 250), 512, 256)
    draw = ImageDraw.Draw(image)
    for x in (352, 416):
        draw.ellipse((x - 11, 92, x + 11, 116), fill=INK)
    for k in range(-3, 4):
        x, y = 384 + 16 * k, 168 - abs(k) ** 2 * 2.2
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=INK)
    for x in (330, 438):
        draw.ellipse((x - 14, 126, x + 14, 148), fill=(244, 190, 190))
    return mottled(image, 11, 0.015, 4)


def _snow_body() -> Image.Image:
    image = canvas((240, 244, 250), 512, 256)
    draw = ImageDraw.Draw(image)
    for y in (70, 118, 166):
        draw.ellipse((370, y, 398, y + 28), fill=INK)
        draw.ellipse((377, y + 6, 385, y + 14), fill=(150, 150, 160))
    write(image, "N", (128, 120), 100, BLUE)
    return mottled(image, 12, 0.015, 4)


def _felt() -> Image.Image:
    image = canvas((44, 40, 56), 256, 256)
    ImageDraw.Draw(image).rectangle((0, 118, 256, 150), fill=RED)
    return mottled(image, 13, 0.08, 1)


def _shade() -> Image.Image:
    image = canvas((30, 40, 92), 512, 256)
    draw = ImageDraw.Draw(image)
    rng = np.random.default_rng(14)
    for _ in range(60):
        x, y, r = rng.uniform(0, 512), rng.uniform(16, 240), rng.uniform(1.5, 5)
        draw.regular_polygon((x, y, r * 1.8), 4, 45, fill=(252, 232, 150))
    draw.ellipse((340, 60, 440, 160), fill=(252, 232, 150))
    draw.ellipse((320, 50, 412, 142), fill=(30, 40, 92))
    write(image, "Bonne nuit", (128, 130), 50, (252, 232, 150))
    draw.rectangle((0, 0, 512, 10), fill=GOLD)
    draw.rectangle((0, 246, 512, 256), fill=GOLD)
    return image


def _brass() -> Image.Image:
    return mottled(stripes((196, 150, 70), (160, 116, 46), 12, 15), 16, 0.05, 3)


def _facade() -> Image.Image:
    image = canvas((236, 214, 170))
    draw = ImageDraw.Draw(image)
    for y in range(0, 512, 24):
        draw.line((0, y, 512, y), fill=(206, 182, 138), width=2)
        for x in range((y // 24 % 2) * 28, 512, 56):
            draw.line((x, y, x, y + 24), fill=(206, 182, 138), width=2)
    draw.rounded_rectangle((70, 300, 190, 540), 40, fill=(110, 40, 36), outline=INK, width=6)
    draw.ellipse((164, 410, 180, 426), fill=GOLD)
    for box in ((270, 300, 440, 430), (196, 130, 316, 220)):
        draw.rectangle(box, fill=(150, 200, 226), outline=(250, 250, 250), width=10)
        x, y = (box[0] + box[2]) // 2, (box[1] + box[3]) // 2
        draw.line((x, box[1], x, box[3]), fill=(250, 250, 250), width=8)
        draw.line((box[0], y, box[2], y), fill=(250, 250, 250), width=8)
    for x in range(276, 440, 22):
        draw.ellipse((x, 424, x + 22, 446), fill=(200, 60, 90) if x // 22 % 2 else GOLD)
    write(image, "42", (130, 340), 48, CREAM)
    return mottled(image, 17, 0.03, 2)


def _tiles() -> Image.Image:
    image = canvas((150, 62, 44), 256, 256)
    draw = ImageDraw.Draw(image)
    rng = np.random.default_rng(18)
    for row in range(8):
        for k in range(-1, 9):
            shade = rng.uniform(0.8, 1.15)
            fill = tuple(int(c * shade) for c in (176, 78, 54))
            x, y = 32 * k + 16 * (row % 2), 32 * row
            draw.rounded_rectangle((x, y - 16, x + 30, y + 30), 14, fill=fill, outline=(96, 36, 26))
    return image


def _bricks() -> Image.Image:
    image = canvas((196, 186, 172), 256, 256)
    draw = ImageDraw.Draw(image)
    for row in range(8):
        for k in range(-1, 5):
            x = 64 * k + 32 * (row % 2)
            draw.rectangle((x + 3, 32 * row + 3, x + 60, 32 * row + 28), fill=(158, 70, 56))
    return mottled(image, 19, 0.06, 2)


def _icing() -> Image.Image:
    image = canvas((206, 150, 86))
    draw = ImageDraw.Draw(image)
    rng = np.random.default_rng(20)
    edge = [(0, y) for y in range(0, 513, 16)]
    left = [(120 + 16 * math.sin(y / 512 * 2 * math.pi * 9), y) for _, y in edge]
    right = [(392 + 16 * math.sin(1 + y / 512 * 2 * math.pi * 7), y) for _, y in edge]
    draw.polygon(left + right[::-1], fill=(240, 150, 182))
    for _ in range(240):
        x, y, a = rng.uniform(150, 362), rng.uniform(8, 504), rng.uniform(0, math.pi)
        fill = (RED, BLUE, GOLD, CREAM, TEAL)[rng.integers(5)]
        draw.line((x, y, x + 16 * math.cos(a), y + 8 * math.sin(a)), fill=fill, width=5)
    # The top of a ring is at three quarters of the way around its tube.
    return ImageChops.offset(mottled(image, 21, 0.03, 3), 128, 0)


def _needles() -> Image.Image:
    image = canvas((30, 84, 48))
    draw = ImageDraw.Draw(image)
    rng = np.random.default_rng(22)
    for _ in range(1600):
        x, y = rng.uniform(0, 512), rng.uniform(0, 512)
        green = int(rng.uniform(70, 150))
        draw.line((x, y, x + rng.uniform(-6, 6), y + 22), fill=(24, green, 50), width=2)
    for k in range(14):
        x, y = (k * 149) % 500 + 6, (k * 211) % 480 + 12
        draw.ellipse((x - 15, y - 15, x + 15, y + 15), fill=(RED, GOLD, BLUE)[k % 3])
    return image


def _bark() -> Image.Image:
    return wood((120, 82, 54), (74, 48, 32), 23)


def _pencil() -> Image.Image:
    image = canvas((244, 196, 48), 256, 512)
    draw = ImageDraw.Draw(image)
    for x in range(0, 256, 43):
        draw.line((x, 0, x, 512), fill=(206, 156, 30), width=4)
    draw.rectangle((0, 0, 256, 24), fill=INK)
    draw.rectangle((0, 24, 256, 78), fill=(226, 184, 132))
    draw.rectangle((0, 440, 256, 474), fill=(180, 184, 190))
    draw.rectangle((0, 474, 256, 512), fill=(232, 130, 140))
    text = Image.new("RGB", (260, 60), (244, 196, 48))
    write(text, "LRM HB 2", (130, 30), 46, (30, 90, 60))
    image.paste(text.rotate(90, expand=True), (160, 130))
    return image


def _china() -> Image.Image:
    image = canvas((246, 246, 242))
    draw = ImageDraw.Draw(image)
    for k in range(5):
        x, y = 51 + 102 * k, 230 + 40 * (k % 2)
        for petal in range(6):
            a = petal * math.pi / 3
            px, py = x + 24 * math.cos(a), y + 24 * math.sin(a)
            draw.ellipse((px - 15, py - 15, px + 15, py + 15), fill=(60, 98, 180))
        draw.ellipse((x - 12, y - 12, x + 12, y + 12), fill=GOLD)
        draw.arc((x - 10, y + 20, x + 70, y + 110), 180, 270, fill=(50, 120, 90), width=6)
    for y in (24, 460):
        draw.rectangle((0, y, 512, y + 16), fill=(60, 98, 180))
    write(image, "tea", (384, 110), 64, (60, 98, 180))
    return image.filter(ImageFilter.GaussianBlur(0.6))


def _cover() -> Image.Image:
    image = canvas((60, 40, 90), 768, 512)
    write(image, "ATLAS", (128, 90), 64, GOLD)
    ImageDraw.Draw(image).ellipse((58, 130, 198, 240), outline=GOLD, width=8)
    return mottled(image, 24, 0.04, 2)


TEXTURES: dict[str, Callable[[], Image.Image]] = {
    "mug": _mug,
    "mug handle": lambda: stripes((38, 88, 70), (52, 110, 160), 6, 28),
    "vase": _vase,
    "clay": lambda: stripes((202, 104, 52), (46, 42, 54), 5, 29),
    "die": _die,
    "chair back": _chair_back,
    "oak": lambda: wood((206, 150, 92), (170, 112, 62), 25),
    "plaid": _plaid,
    "rocket": _rocket,
    "fin": lambda: _fin(RED),
    "fin blue": lambda: _fin(BLUE),
    "beetle": _beetle,
    "cap": _cap,
    "stem": _stem,
    "snow face": _snow_face,
    "snow body": _snow_body,
    "snow": lambda: mottled(canvas((240, 244, 250), 256, 128), 30, 0.02, 4),
    "scarf": lambda: stripes(TEAL, GOLD, 12, 26),
    "felt": _felt,
    "carrot": lambda: stripes((236, 124, 34), (214, 98, 22), 9, 27),
    "shade": _shade,
    "brass": _brass,
    "facade": _facade,
    "tiles": _tiles,
    "bricks": _bricks,
    "icing": _icing,
    "needles": _needles,
    "bark": _bark,
    "pencil": _pencil,
    "china": _china,
    "cover": _cover,
}
"""Per texture, the function that draws it."""
