"""The objects of the demo source: their shapes, textures, captions and tags."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipelines.demo.demo_shapes import Part, ball, block, lathe, prism, tube
from pipelines.demo.demo_textures import TEXTURES

__all__ = ["OBJECTS", "DemoObject"]


@dataclass(frozen=True, kw_only=True)
class DemoObject:
    """An object of the demo source."""

    name: str
    build: Callable[[], list[Part]]
    caption: str | None
    tags: tuple[str, ...]
    category: str | None = None
    """LVIS category."""
    truncated: bool = False
    """Whether the file is cut in half, as an example of a damaged one."""


def _arc(x: float, z: float, radius: float, start: float, end: float) -> np.ndarray:
    """Return points (24, 3) of an arc in the plane y = 0; angles in degrees from +x towards +z."""
    angle = np.radians(np.linspace(start, end, 24))
    return np.stack([x + radius * np.cos(angle), 0 * angle, z + radius * np.sin(angle)], axis=1)


def _circle(radius: float, count: int = 48) -> np.ndarray:
    """Return points (count, 3) of a circle in the plane z = 0."""
    angle = 2 * np.pi * np.arange(count) / count
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle], axis=1)


def _mug() -> list[Part]:
    wall = lathe([(0.5, 0.02), (0.5, 1)])
    inside = [(0.46, 1.02), (0.43, 1), (0.43, 1), (0.43, 0.06), (0.43, 0.06), (0, 0.06)]
    plain = [lathe([(0, 0), (0.48, 0), (0.5, 0.02)]), lathe([(0.5, 1), (0.48, 1.02), *inside])]
    handle = tube(_arc(0.48, 0.52, 0.3, 93, -93), 0.07)
    return [
        wall.painted(TEXTURES["mug"]()),
        *[part.painted((244, 234, 212)) for part in plain],
        handle.painted(TEXTURES["mug handle"]()),
    ]


def _vase() -> list[Part]:
    z = np.linspace(0, 1.5, 40)
    radius = 0.3 + 0.26 * np.sin(np.pi * (z / 1.5) ** 0.8) ** 2 - 0.12 * (z / 1.5) ** 2
    wall = list(zip(radius, z, strict=True))
    lip = [(radius[-1], 1.5), (radius[-1] + 0.07, 1.56), (radius[-1] + 0.05, 1.6)]
    inside = [(radius[-1] + 0.05, 1.6), (radius[-1] - 0.04, 1.5), (radius[-1] - 0.04, 1.0), (0, 1)]
    handles = []
    for sign in (-1, 1):
        arc = _arc(0.42, 1.2, 0.24, 150, -95)
        arc[:, 0] *= sign
        handles.append(tube(arc, 0.045).painted(TEXTURES["clay"]()))
    return [
        lathe([(0, 0), (0.3, 0), (0.3, 0), *wall, wall[-1], *lip]).painted(TEXTURES["vase"]()),
        lathe(inside).painted((46, 42, 54)),
        *handles,
    ]


def _die() -> list[Part]:
    return [block((1, 1, 1), 0.14, atlas=True).painted(TEXTURES["die"]()).turned(20, (0, 0, 1))]


def _chair() -> list[Part]:
    oak, plaid = TEXTURES["oak"](), TEXTURES["plaid"]()
    legs = [
        block((0.09, 0.09, 0.5)).moved(x, y, 0.25).painted(oak)
        for x in (-0.4, 0.4)
        for y in (-0.4, 0.4)
    ]
    posts = [block((0.09, 0.09, 0.75)).moved(x, 0.4, 0.9).painted(oak) for x in (-0.4, 0.4)]
    rails = [block((0.04, 0.75, 0.05)).moved(x, 0, 0.2).painted(oak) for x in (-0.4, 0.4)]
    seat = block((0.94, 0.94, 0.08)).moved(z=0.53).painted(oak)
    cushion = block((0.84, 0.8, 0.12), 0.05).moved(0, -0.02, 0.62).painted(plaid)
    back = block((0.78, 0.06, 0.5)).moved(0, 0.4, 1.0).painted(TEXTURES["chair back"]())
    return [*legs, *posts, *rails, seat, cushion, back]


def _rocket() -> list[Part]:
    z = np.linspace(0, 1.7, 40)
    radius = 0.36 * np.sqrt(np.clip(1 - ((z - 0.45) / 1.25) ** 2, 0, 1))
    radius[z < 0.45] = 0.36 - 0.1 * ((0.45 - z[z < 0.45]) / 0.45) ** 2
    hull = lathe([(0, 0), (radius[0], 0), (radius[0], 0), *zip(radius, z, strict=True)])
    nozzle = lathe([(0.2, -0.14), (0.16, 0), (0.16, 0), (0.1, 0), (0.1, 0), (0.17, -0.14)])
    fin = prism([(0.24, 0.02), (0.62, -0.3), (0.64, 0.1), (0.3, 0.6)], 0.05)
    fins = [
        part.turned(angle, (0, 0, 1)).painted(TEXTURES[paint]())
        for angle, paint in ((30, "fin"), (150, "fin"), (270, "fin blue"))
        for part in fin
    ]
    return [
        hull.painted(TEXTURES["rocket"]()),
        nozzle.painted(TEXTURES["brass"]()),
        *fins,
    ]


def _mushroom() -> list[Part]:
    angle = np.radians(np.linspace(0, 90, 20))
    top = [(0.8 * np.cos(a), 0.75 + 0.55 * np.sin(a)) for a in angle]
    cap = lathe([(0.2, 0.68), (0.74, 0.68), (0.8, 0.75), *top[1:]])
    stem = lathe([(0, 0), (0.3, 0), (0.3, 0), (0.34, 0.12), (0.24, 0.4), (0.22, 0.72)])
    beetle = ball(0.11).scaled(1.25, 1, 0.7).turned(55, (1, 0, 0)).moved(0.05, -0.56, 1.14)
    child = [
        lathe([(0.06, 0.3), (0.24, 0.3), (0.26, 0.33), (0.2, 0.44), (0.1, 0.5), (0, 0.52)]),
        lathe([(0, 0), (0.1, 0), (0.1, 0), (0.08, 0.32)]),
    ]
    cap_paint, stem_paint = TEXTURES["cap"](), TEXTURES["stem"]()
    return [
        cap.painted(cap_paint),
        stem.painted(stem_paint),
        beetle.painted(TEXTURES["beetle"]()),
        child[0].moved(0.42, -0.22).painted(cap_paint),
        child[1].moved(0.42, -0.22).painted(stem_paint),
    ]


def _snowman() -> list[Part]:
    body, face = TEXTURES["snow body"](), TEXTURES["snow face"]()
    nose = lathe([(0.06, 0), (0.06, 0), (0.04, 0.18), (0, 0.36)], 24).turned(90, (1, 0, 0))
    hat = lathe([(0, 0), (0.36, 0), (0.36, 0.04), (0.36, 0.04), (0.24, 0.05), (0.24, 0.05),
                 (0.22, 0.36), (0.22, 0.36), (0, 0.36)])  # fmt: skip
    arms = [
        tube([[0.36 * s, 0, 0.95], [0.6 * s, -0.05, 1.1 + 0.1 * s], [0.82 * s, 0, 1.3]], 0.03)
        for s in (-1, 1)
    ]
    return [
        ball(0.55).scaled(1, 1, 0.92).moved(z=0.48).painted(TEXTURES["snow"]()),
        ball(0.4).moved(z=1.08).painted(body),
        ball(0.29).moved(z=1.62).painted(face),
        nose.moved(0, -0.26, 1.62).painted(TEXTURES["carrot"]()),
        hat.turned(-12, (0, 1, 0)).moved(0.04, 0, 1.82).painted(TEXTURES["felt"]()),
        tube(_circle(0.29), 0.075, closed=True).moved(z=1.4).painted(TEXTURES["scarf"]()),
        block((0.13, 0.05, 0.42))
        .turned(10, (0, 1, 0))
        .moved(0.17, -0.36, 1.2)
        .painted(TEXTURES["scarf"]()),
        *[arm.painted(TEXTURES["bark"]()) for arm in arms],
    ]


def _lamp() -> list[Part]:
    brass = TEXTURES["brass"]()
    foot = lathe([(0, 0), (0.4, 0), (0.4, 0), (0.4, 0.06), (0.1, 0.12), (0.06, 0.2)])
    shade = lathe([(0.5, 0.75), (0.5, 0.75), (0.3, 1.3), (0.3, 1.3)])
    inside = lathe([(0.3, 1.3), (0.29, 1.3), (0.29, 1.3), (0.49, 0.75), (0.49, 0.75), (0.5, 0.75)])
    knobs = [
        ball(r).moved(z=z).painted(TEXTURES["plaid"]()) for r, z in ((0.15, 0.32), (0.1, 0.54))
    ]
    chain = tube([[0.1, -0.1, 0.8], [0.1, -0.11, 0.7], [0.1, -0.1, 0.55]], 0.012)
    return [
        foot.painted(brass),
        *knobs,
        lathe([(0.04, 0.1), (0.04, 1.18)], 24).painted(brass),
        lathe(
            [(0, 1.17), (0.34, 1.17), (0.34, 1.17), (0.34, 1.19), (0.34, 1.19), (0, 1.19)]
        ).painted((250, 236, 190)),
        shade.painted(TEXTURES["shade"]()),
        inside.painted((250, 236, 190)),
        chain.painted(brass),
        ball(0.03, 16).moved(0.1, -0.1, 0.54).painted(brass),
    ]


def _house() -> list[Part]:
    outline = [(-0.6, 0), (0.6, 0), (0.6, 0.75), (0, 1.25), (-0.6, 0.75)]
    front, walls = prism(outline, 0.9)
    tiles = TEXTURES["tiles"]()
    slope = np.degrees(np.arctan2(0.5, 0.6))
    roof = [
        block((0.9, 1.1, 0.07)).turned(s * slope, (0, 1, 0)).moved(s * 0.34, 0, 1.03).painted(tiles)
        for s in (-1, 1)
    ]
    return [
        front.painted(TEXTURES["facade"]()),
        walls.painted(TEXTURES["bricks"]()),
        *roof,
        block((0.2, 0.2, 0.5)).moved(0.36, 0.2, 1.2).painted(TEXTURES["bricks"]()),
        block((0.34, 0.2, 0.06)).moved(-0.25, -0.52, 0.03).painted(TEXTURES["oak"]()),
    ]


def _doughnut() -> list[Part]:
    return [tube(_circle(0.62), 0.33, closed=True).scaled(1, 1, 0.85).painted(TEXTURES["icing"]())]


def _tree() -> list[Part]:
    needles = TEXTURES["needles"]()
    layers = [
        lathe([(0, z), (r, z - 0.06), (r, z - 0.06), (r * 0.5, z + 0.3), (0, z + 0.75)], 9)
        for r, z in ((0.6, 0.35), (0.48, 0.75), (0.34, 1.1))
    ]
    trunk = lathe([(0, 0), (0.14, 0), (0.14, 0), (0.11, 0.4)], 9)
    star = ball(0.09, 8).moved(z=1.86).painted(TEXTURES["brass"]())
    return [*[layer.painted(needles) for layer in layers], trunk.painted(TEXTURES["bark"]()), star]


def _pencil() -> list[Part]:
    side = lathe([(0, 0), (0.05, 0.0), (0.05, 0), (0.055, 0.15), (0.055, 1.75), (0.0, 2.0)], 24)
    return [side.painted(TEXTURES["pencil"]())]


def _tea_set() -> list[Part]:
    china = TEXTURES["china"]()
    angle = np.radians(np.linspace(-75, 75, 24))
    pot = lathe([(0, 0.0), *[(0.42 * np.cos(a), 0.4 + 0.4 * np.sin(a)) for a in angle], (0, 0.8)])
    spout = tube([[0.3, 0, 0.32], [0.55, 0, 0.4], [0.65, 0, 0.6], [0.76, 0, 0.72]],
                 np.array([0.1, 0.08, 0.06, 0.045]))  # fmt: skip
    handle = tube(_arc(-0.38, 0.42, 0.22, 70, 290), 0.045)
    cup = lathe([(0, 0.05), (0.16, 0.06), (0.24, 0.2), (0.27, 0.38), (0.27, 0.38), (0.25, 0.38),
                 (0.25, 0.38), (0.2, 0.18), (0, 0.1)])  # fmt: skip
    saucer = lathe([(0, 0), (0.2, 0), (0.34, 0.06), (0.34, 0.08), (0.2, 0.05), (0, 0.05)])
    parts = [pot, spout, handle, ball(0.07, 16).moved(z=0.84)]
    for x, y in ((0.95, -0.75), (-0.15, -1.15)):
        parts += [part.moved(x, y) for part in (cup, saucer)]
    return [part.painted(china) for part in parts]


def _bowl() -> list[Part]:
    angle = np.radians(np.linspace(-90, 0, 20))
    outside = [(0.8 * np.cos(a), 0.7 + 0.7 * np.sin(a)) for a in angle]
    inside = [(0.72 * np.cos(a), 0.7 + 0.62 * np.sin(a)) for a in angle[::-1]]
    return [lathe([*outside, (0.76, 0.72), *inside]).painted((178, 96, 62))]


def _book() -> list[Part]:
    return [block((0.9, 0.25, 1.2), 0.02, atlas=True).painted(TEXTURES["cover"]())]


OBJECTS = (
    DemoObject(
        name="alpine mug",
        build=_mug,
        caption="A mug with a band of snowy mountains and the word ALPES.",
        tags=("mug", "kitchen"),
        category="mug",
    ),
    DemoObject(
        name="amphora with fish",
        build=_vase,
        caption="A terracotta vase with two handles, painted with two black fish.",
        tags=("vase", "antique"),
        category="vase",
    ),
    DemoObject(
        name="numbered die",
        build=_die,
        caption="A cream coloured die with a coloured number on each side.",
        tags=("die", "game"),
        category="dice",
    ),
    DemoObject(
        name="plaid chair",
        build=_chair,
        caption="A wooden chair with a plaid cushion and the letter R on its back.",
        tags=("chair", "furniture"),
        category="chair",
    ),
    DemoObject(
        name="toy rocket",
        build=_rocket,
        caption="A toy rocket with a red nose, round windows and three fins.",
        tags=("rocket", "toy"),
    ),
    DemoObject(
        name="red mushrooms",
        build=_mushroom,
        caption="A large and a small red mushroom with white dots and a beetle.",
        tags=("mushroom", "forest"),
        category="mushroom",
    ),
    DemoObject(
        name="snowman",
        build=_snowman,
        caption="A snowman with a carrot nose, a felt hat and a striped scarf.",
        tags=("snowman", "winter"),
        category="snowman",
    ),
    DemoObject(
        name="night lamp",
        build=_lamp,
        caption="A brass table lamp whose shade shows the moon and the stars.",
        tags=("lamp", "bedroom"),
        category="lamp",
    ),
    DemoObject(
        name="small house",
        build=_house,
        caption="A small house with a red door, number 42, and a tiled roof.",
        tags=("house", "slow-living"),
    ),
    DemoObject(
        name="pink doughnut",
        build=_doughnut,
        caption=None,
        tags=("doughnut",),
        category="doughnut",
    ),
    DemoObject(
        name="decorated tree",
        build=_tree,
        caption="A fir tree with coloured balls and a star.",
        tags=("tree", "low-poly"),
        category="Christmas_tree",
    ),
    DemoObject(
        name="yellow pencil",
        build=_pencil,
        caption="A long yellow pencil with a pink eraser.",
        tags=("pencil",),
        category="pencil",
    ),
    DemoObject(
        name="tea set",
        build=_tea_set,
        caption="A teapot and two cups with blue flowers.",
        tags=("teapot", "set"),
        category="teapot",
    ),
    DemoObject(
        name="clay bowl",
        build=_bowl,
        caption="A plain bowl of red clay.",
        tags=("bowl",),
        category="bowl",
    ),
    DemoObject(
        name="torn atlas",
        build=_book,
        caption="A purple book with the word ATLAS.",
        tags=("book",),
        category="book",
        truncated=True,
    ),
)
"""Nine objects are kept, each of five filters drops one, and the file of the last is damaged."""
