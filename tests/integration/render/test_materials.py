"""Materials of a file, rendered from the front.

The light is white and equal from all directions, so a matt surface shows its own colour and a
little gloss. Colours are compared with those of a plain material, within 4 of 255 levels.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.cameras import Camera, intrinsics_from_fov, look_at, project
from dataset.views import ViewSet
from render.darkness import dark_share
from render.process import BlenderProcess, RenderFailure
from render.render_config import RenderConfig
from tests.support.gltf_builder import GltfBuilder, encode_image

SIZE = 64
WHITE_LIGHT: dict[str, Any] = {"light_strength": 1.0, "light_gradient": 0.0}
CONFIG = RenderConfig(resolution=SIZE, samples=8, denoise=False, **WHITE_LIGHT)
FRONT = Camera(camera_to_world=look_at(np.array([0, -3.0, 0])), intrinsics=intrinsics_from_fov(50))
BEHIND = Camera(camera_to_world=look_at(np.array([0, 3.0, 0])), intrinsics=intrinsics_from_fov(50))
LEFT, RIGHT = (-0.5, 0.0), (0.5, 0.0)
LEVELS = 4.0

Look = Callable[..., ViewSet]


@pytest.fixture
def look(blender: BlenderProcess, tmp_path: Path) -> Look:
    """Return a function that renders a builder's file; `used` and `required` are its extensions."""

    def render(
        builder: GltfBuilder,
        used: Sequence[str] = (),
        required: Sequence[str] = (),
        camera: Camera = FRONT,
        config: RenderConfig = CONFIG,
    ) -> ViewSet:
        blender.open(builder.save(tmp_path / "object.glb", used, required), "cube")
        views, report = blender.render([camera], config)
        assert dark_share(views, report.base_colours, *WHITE_LIGHT.values()) == 0
        return views

    return render


def pixels_around(views: ViewSet, xz: tuple[float, float] = (0.0, 0.0)) -> tuple[slice, slice]:
    """Return the pixels around the point (x, 0, z)."""
    point = np.array([[xz[0], 0, xz[1]]], dtype=np.float32)
    image, _ = project(views.cameras[0], point)
    column, row = (image[0] * SIZE).astype(int)
    return slice(row - 3, row + 4), slice(column - 3, column + 4)


def colour(views: ViewSet, point: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Return the mean RGB, 0 to 255, around a point (x, z)."""
    return views.rgba[0][pixels_around(views, point)][..., :3].reshape(-1, 3).mean(axis=0)


def alpha(views: ViewSet, point: tuple[float, float] = (0.0, 0.0)) -> float:
    return float(views.rgba[0][pixels_around(views, point)][..., 3].mean()) / 255


def linear(levels: np.ndarray) -> np.ndarray:
    """Convert sRGB levels, 0 to 255, to linear light."""
    value = levels / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def square(material: Callable[[GltfBuilder], int], **attributes: Any) -> GltfBuilder:
    """Return a square of 2 x 2 with a material and further vertex attributes."""
    builder = GltfBuilder()
    more = {name: builder.accessor(values) for name, values in attributes.items()}
    builder.node(mesh=builder.quad(material(builder), attributes=more))
    return builder


def plain(look: Look, *rgb: float) -> np.ndarray:
    """Return the rendered colour of a matt material without a texture."""
    return colour(look(square(lambda builder: builder.material((*rgb, 1)))))


def halves(left: Sequence[int], right: Sequence[int]) -> np.ndarray:
    """Return the pixels of an image with two colours."""
    pixels = np.zeros((16, 16, len(left)), dtype=np.uint8)
    pixels[:, :8], pixels[:, 8:] = left, right
    return pixels


RED_BLUE = halves((255, 0, 0), (0, 0, 255))


def assert_red_then_blue(look: Look, views: ViewSet) -> None:
    np.testing.assert_allclose(colour(views, LEFT), plain(look, 1, 0, 0), atol=LEVELS)
    np.testing.assert_allclose(colour(views, RIGHT), plain(look, 0, 0, 1), atol=LEVELS)


def test_an_object_without_textures_shows_its_colour(look: Look):
    # The white light adds the gloss of a dielectric, about 4 %.
    expected = np.array([0.5, 0.2, 0.1])
    assert np.abs(linear(plain(look, 0.5, 0.2, 0.1)) - expected).max() < 0.05


def test_an_object_without_a_material_is_white(look: Look):
    builder = GltfBuilder()
    builder.node(mesh=builder.quad())
    np.testing.assert_allclose(colour(look(builder)), plain(look, 1, 1, 1), atol=LEVELS)


CORNERS = np.array([[1, 0, 0], [0, 0, 1], [0, 0, 1], [1, 0, 0]])
"""Red on the left, blue on the right."""


@pytest.mark.parametrize("components", [3, 4])
def test_vertex_colours_without_a_material(look: Look, components: int):
    builder = GltfBuilder()
    values = np.hstack([np.tile([0.2, 0.5, 0.05], (4, 1)), np.ones((4, 1))])[:, :components]
    builder.node(mesh=builder.quad(attributes={"COLOR_0": builder.accessor(values)}))
    np.testing.assert_allclose(colour(look(builder)), plain(look, 0.2, 0.5, 0.05), atol=LEVELS)


def test_vertex_colours_blend_between_corners(look: Look):
    views = look(square(lambda builder: builder.material(), COLOR_0=CORNERS))
    left, right = linear(colour(views, (-0.8, 0))), linear(colour(views, (0.8, 0)))
    assert left[0] > 4 * left[2]
    assert right[2] > 4 * right[0]
    middle = linear(colour(views))
    assert middle[0] == pytest.approx(middle[2], abs=0.06)


def test_vertex_colours_multiply_factor_and_texture(look: Look):
    white_green = halves((255, 255, 255), (0, 255, 0))
    views = look(
        square(
            lambda builder: builder.material((0.5, 1, 1, 1), texture=builder.texture(white_green)),
            COLOR_0=np.tile([0.8, 0.4, 0.2], (4, 1)),
        )
    )
    np.testing.assert_allclose(colour(views, LEFT), plain(look, 0.4, 0.4, 0.2), atol=LEVELS)
    np.testing.assert_allclose(colour(views, RIGHT), plain(look, 0, 0.4, 0), atol=LEVELS)


def test_the_factor_multiplies_the_texture(look: Look):
    grey = np.full((4, 4, 3), 188, dtype=np.uint8)  # 0.503 in linear light
    views = look(square(lambda b: b.material((1, 0.5, 0.25, 1), texture=b.texture(grey))))
    expected = plain(look, 0.503, 0.2515, 0.1258)
    np.testing.assert_allclose(colour(views), expected, atol=LEVELS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "lossless WEBP"])
def test_textures_of_every_format_are_shown(look: Look, kind: str):
    webp = "WEBP" in kind
    options: dict[str, Any] = {"lossless": True} if "lossless" in kind else {"quality": 95}
    data = encode_image(RED_BLUE, "WEBP" if webp else kind, **({} if kind == "PNG" else options))
    name = kind.rpartition(" ")[2].lower()
    builder = square(lambda b: b.material(texture=b.texture(data, f"image/{name}")))
    if webp:
        builder.document["textures"] = [{"extensions": {"EXT_texture_webp": {"source": 0}}}]
    views = look(builder, required=["EXT_texture_webp"] if webp else ())
    np.testing.assert_allclose(colour(views, LEFT), plain(look, 1, 0, 0), atol=8)
    np.testing.assert_allclose(colour(views, RIGHT), plain(look, 0, 0, 1), atol=8)


def test_texture_transforms_apply(look: Look):
    """A texture of half the size, shifted by half of itself, shows blue, red, blue, red."""

    def repeated(builder: GltfBuilder) -> int:
        material = builder.material(texture=builder.texture(RED_BLUE))
        info = builder.document["materials"][material]["pbrMetallicRoughness"]["baseColorTexture"]
        transform = {"scale": [2, 1], "offset": [0.5, 0]}
        info["extensions"] = {"KHR_texture_transform": transform}
        return material

    views = look(square(repeated), used=["KHR_texture_transform"])
    channels = [colour(views, (x, 0)).argmax() for x in (-0.75, -0.25, 0.25, 0.75)]
    assert channels == [2, 0, 2, 0]


@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_unlit_colours_do_not_depend_on_the_light(look: Look, strength: float):
    """Two unlit squares, one turned by 50 degrees, both have the brightness in the file."""
    builder = GltfBuilder()
    unlit = {"extensions": {"KHR_materials_unlit": {}}}
    mesh = builder.quad(
        builder.material((0.5, 0.2, 0.1, 1), **unlit), corners=((-0.4, -1), (0.4, 1))
    )
    turned = [0, np.sin(np.radians(25)), 0, np.cos(np.radians(25))]
    builder.node(mesh=mesh, translation=[-0.5, 0, 0])
    builder.node(mesh=mesh, translation=[0.5, 0, 0], rotation=turned)
    config = RenderConfig(resolution=SIZE, samples=4, denoise=False, light_strength=strength)
    views = look(builder, used=["KHR_materials_unlit"], config=config)
    for point in (LEFT, RIGHT):
        np.testing.assert_allclose(linear(colour(views, point)), [0.5, 0.2, 0.1], atol=0.01)
    assert (views.depth[0][pixels_around(views, RIGHT)] > 0).all()


def glossy(extension: dict[str, Any]) -> Callable[[GltfBuilder], int]:
    """Return a specular-glossiness material; a reader of metallic-roughness alone sees green."""

    def material(builder: GltfBuilder) -> int:
        values = dict(extension)
        for name in ("diffuseTexture", "specularGlossinessTexture"):
            if name in values:
                values[name] = {"index": builder.texture(values[name])}
        extensions = {"KHR_materials_pbrSpecularGlossiness": values}
        return builder.material((0, 1, 0, 1), extensions=extensions)

    return material


GLOSSY = ["KHR_materials_pbrSpecularGlossiness"]


def test_specular_glossiness_shows_its_diffuse_texture(look: Look):
    matt = {"diffuseTexture": RED_BLUE, "specularFactor": [0.04] * 3, "glossinessFactor": 0.0}
    assert_red_then_blue(look, look(square(glossy(matt)), used=GLOSSY))
    views = look(square(glossy(matt | {"diffuseFactor": [0.5, 0.5, 0.25, 1]})), used=GLOSSY)
    np.testing.assert_allclose(colour(views, RIGHT), plain(look, 0, 0, 0.25), atol=LEVELS)


def test_specular_glossiness_reads_gloss_from_alpha(
    look: Look, blender: BlenderProcess, tmp_path: Path
):
    """Textured glossiness looks like the constant; light from one side shows differences."""
    turned = [0, np.sin(np.radians(30)), 0, np.cos(np.radians(30))]
    one_sided = CONFIG.model_copy(update={"light_gradient": 1.0, "samples": 64})

    def colour_of(gloss: dict[str, Any]) -> np.ndarray:
        builder = square(glossy({"diffuseFactor": [0, 0, 0, 1]} | gloss))
        builder.document["nodes"][0]["rotation"] = turned
        return colour(look(builder, used=GLOSSY, config=one_sided))

    texture = np.full((4, 4, 4), 255, dtype=np.uint8)
    texture[..., 3] = 204
    for factor in (1.0, 0.25):
        constant = colour_of({"glossinessFactor": 0.8 * factor})
        mapped = colour_of({"glossinessFactor": factor, "specularGlossinessTexture": texture})
        np.testing.assert_allclose(mapped, constant, atol=LEVELS)
    assert (
        np.abs(colour_of({"glossinessFactor": 1.0}) - colour_of({"glossinessFactor": 0.0})).max()
        > 12
    )


def test_emission_is_added(look: Look):
    black = {"emissiveFactor": [0.2, 0, 0]}
    dim = look(square(lambda builder: builder.material((0, 0, 0, 1), **black)))
    strong = black | {"extensions": {"KHR_materials_emissive_strength": {"emissiveStrength": 3.0}}}
    bright = look(
        square(lambda builder: builder.material((0, 0, 0, 1), **strong)),
        used=["KHR_materials_emissive_strength"],
    )
    for views, light in ((dim, 0.2), (bright, 0.6)):
        red, green, _ = linear(colour(views))
        assert red - green == pytest.approx(light, abs=0.02)


def test_emissive_textures_are_shown(look: Look):
    def shining(builder: GltfBuilder) -> int:
        info = {"index": builder.texture(RED_BLUE)}
        return builder.material((0, 0, 0, 1), emissiveFactor=[0.5] * 3, emissiveTexture=info)

    views = look(square(shining))
    for point, channel in ((LEFT, 0), (RIGHT, 2)):
        light = linear(colour(views, point))
        assert light[channel] - light[1] == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("double_sided", [True, False])
@pytest.mark.parametrize("mode", ["lit", "unlit"])
def test_both_sides_are_drawn(look: Look, double_sided: bool, mode: str):
    extensions: dict[str, Any] = {"KHR_materials_unlit": {}} if mode == "unlit" else {}
    builder = square(
        lambda b: b.material((0.5, 0.2, 0.1, 1), doubleSided=double_sided, extensions=extensions)
    )
    pictures = [look(builder, used=list(extensions), camera=camera) for camera in (FRONT, BEHIND)]
    np.testing.assert_allclose(*(colour(views) for views in pictures), atol=LEVELS)
    for views, side in zip(pictures, (-1, 1), strict=True):
        middle = pixels_around(views)
        np.testing.assert_allclose(views.depth[0][middle], 3, atol=2e-3)
        np.testing.assert_allclose(views.normals[0][middle], np.full((7, 7, 3), [0, side, 0]))


THIN_THICK = halves((255, 0, 0, 77), (255, 0, 0, 178))
"""Opacity 0.3 on the left, 0.7 on the right."""


def assert_only_thick_half(views: ViewSet) -> None:
    assert not views.depth[0][pixels_around(views, LEFT)].any()
    assert not views.normals[0][pixels_around(views, LEFT)].any()
    np.testing.assert_allclose(views.depth[0][pixels_around(views, RIGHT)], 3, atol=2e-3)
    expected = np.full((7, 7, 3), [0, -1, 0])
    np.testing.assert_allclose(views.normals[0][pixels_around(views, RIGHT)], expected, atol=1e-3)


@pytest.mark.parametrize("unlit", [False, True])
def test_blended_textures_have_depth_where_opacity_is_over_half(look: Look, unlit: bool):
    extensions: dict[str, Any] = {"KHR_materials_unlit": {}} if unlit else {}
    builder = square(
        lambda b: b.material(
            texture=b.texture(THIN_THICK), alphaMode="BLEND", extensions=extensions
        )
    )
    config = CONFIG.model_copy(update={"samples": 64})
    views = look(builder, used=list(extensions), config=config)
    assert alpha(views, LEFT) == pytest.approx(0.3, abs=0.05)
    assert alpha(views, RIGHT) == pytest.approx(0.7, abs=0.05)
    assert_only_thick_half(views)


@pytest.mark.parametrize("cutoff, opacities", [(None, (0, 1)), (0.2, (1, 1)), (0.6, (0, 1))])
def test_masked_textures_are_opaque_or_transparent(
    look: Look, cutoff: float | None, opacities: tuple[int, int]
):
    mode: dict[str, Any] = {"alphaMode": "MASK"} | ({"alphaCutoff": cutoff} if cutoff else {})
    views = look(square(lambda b: b.material(texture=b.texture(THIN_THICK), **mode)))
    assert (alpha(views, LEFT), alpha(views, RIGHT)) == opacities
    if opacities == (0, 1):
        assert_only_thick_half(views)
    np.testing.assert_allclose(colour(views, RIGHT), plain(look, 1, 0, 0), atol=LEVELS)


def test_opaque_materials_ignore_the_alpha_of_their_texture(look: Look):
    views = look(square(lambda b: b.material(texture=b.texture(THIN_THICK))))
    for point in (LEFT, RIGHT):
        assert alpha(views, point) == 1
        np.testing.assert_allclose(colour(views, point), plain(look, 1, 0, 0), atol=LEVELS)


def test_the_alpha_of_vertex_colours_is_opacity(look: Look):
    corners = [[1, 0, 0, 0.3]] * 4
    views = look(square(lambda b: b.material(alphaMode="BLEND"), COLOR_0=corners))
    assert alpha(views) == pytest.approx(0.3, abs=0.08)
    assert not views.depth[0].any()


def test_glass_is_solid_and_shows_what_is_behind_it(look: Look):
    builder = GltfBuilder()
    red = builder.material((1, 0, 0, 1))
    builder.node(mesh=builder.quad(red, corners=((-1, -1), (0, 1))))
    glass = builder.material(extensions={"KHR_materials_transmission": {"transmissionFactor": 1.0}})
    builder.document["materials"][glass]["pbrMetallicRoughness"]["roughnessFactor"] = 0
    builder.node(mesh=builder.quad(glass, z=0.5))
    views = look(builder, used=["KHR_materials_transmission"])
    for point in (LEFT, RIGHT):
        np.testing.assert_allclose(views.depth[0][pixels_around(views, point)], 2.75, atol=2e-3)
        expected = np.full((7, 7, 3), [0, -1, 0])
        np.testing.assert_allclose(
            views.normals[0][pixels_around(views, point)], expected, atol=1e-3
        )
        assert alpha(views, point) == 1
    red_level, green_level, _ = colour(views, LEFT)
    assert red_level > green_level + 60


def test_an_image_may_be_colour_and_data(look: Look):
    """Blender would read the shared image as data and show a darker or brighter colour."""
    grey = np.full((4, 4, 3), 188, dtype=np.uint8)

    def shared(builder: GltfBuilder) -> int:
        texture = builder.texture(grey)
        material = builder.material(texture=texture)
        pbr = builder.document["materials"][material]["pbrMetallicRoughness"]
        pbr["metallicRoughnessTexture"] = {"index": texture}
        return material

    np.testing.assert_allclose(
        colour(look(square(shared))), plain(look, 0.503, 0.503, 0.503), atol=8
    )


def failure(look: Look, builder: GltfBuilder, used: Sequence[str] = ()) -> RenderFailure:
    with pytest.raises(RenderFailure) as caught:
        look(builder, used=used)
    return caught.value


def textured() -> GltfBuilder:
    return square(lambda builder: builder.material(texture=builder.texture(RED_BLUE)))


def test_a_texture_in_an_unknown_extension_needs_a_fallback(look: Look):
    builder = textured()
    name = "MSFT_texture_dds"
    builder.document["textures"] = [{"extensions": {name: {"source": 0}}}]
    caught = failure(look, builder, used=[name])
    assert (caught.kind, name in str(caught)) == ("unsupported_extension", True)
    builder.document["textures"][0]["source"] = 0  # the fallback of other readers
    assert_red_then_blue(look, look(builder, used=[name]))


@pytest.mark.parametrize(
    "texture, image",
    [({}, None), ({"source": 0}, {"name": "no bytes"}), ({"source": 5}, None)],
    ids=["no source", "no bytes", "no such image"],
)
def test_a_texture_without_an_image_is_malformed(
    look: Look, texture: dict[str, Any], image: dict[str, Any] | None
):
    builder = textured()
    builder.document["textures"] = [texture]
    if image is not None:
        builder.document["images"] = [image]
    assert failure(look, builder).kind == "malformed"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_image_is_an_import_error(look: Look, kind: str):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode_image(noise, kind)
    assert len(data) > 1500
    builder = square(lambda b: b.material(texture=b.texture(data[:1000])))
    assert failure(look, builder).kind == "import_error"


def test_images_without_effect_may_be_malformed(look: Look):
    """Holds for occlusion, other variants, unused materials, and inputs that unlit ones ignore."""
    builder = GltfBuilder()
    broken = {"index": builder.texture(b"no image")}
    lit = builder.material((1, 0, 0, 1), occlusionTexture=broken)
    unlit = {"KHR_materials_unlit": {}}
    flat = builder.material((0, 0, 1, 1), normalTexture=broken, extensions=unlit)
    builder.material(emissiveTexture=broken)
    variant = builder.material(normalTexture=broken)
    mesh = builder.quad(lit, corners=((-1, -1), (0, 1)))
    mappings = [{"material": variant, "variants": [0]}]
    builder.document["meshes"][mesh]["primitives"][0]["extensions"] = {
        "KHR_materials_variants": {"mappings": mappings}
    }
    builder.document["extensions"] = {"KHR_materials_variants": {"variants": [{"name": "other"}]}}
    builder.node(mesh=mesh)
    builder.node(mesh=builder.quad(flat, corners=((0, -1), (1, 1))))
    views = look(builder, used=["KHR_materials_variants", "KHR_materials_unlit"])
    np.testing.assert_allclose(colour(views, LEFT), plain(look, 1, 0, 0), atol=LEVELS)
    np.testing.assert_allclose(colour(views, RIGHT), [0, 0, 255], atol=LEVELS)


OTHER_TEXTURES: dict[str, dict[str, Any]] = {
    "normalTexture": {},
    "emissiveTexture": {"emissiveFactor": [1, 1, 1]},
    "metallicRoughnessTexture": {},
    "transmissionTexture": {"transmissionFactor": 1.0},
    "clearcoatTexture": {"clearcoatFactor": 1.0},
    "sheenColorTexture": {"sheenColorFactor": [1, 1, 1]},
    "specularColorTexture": {},
}
EXTENSION_OF = {
    "transmissionTexture": "KHR_materials_transmission",
    "clearcoatTexture": "KHR_materials_clearcoat",
    "sheenColorTexture": "KHR_materials_sheen",
    "specularColorTexture": "KHR_materials_specular",
}


@pytest.mark.parametrize("name", OTHER_TEXTURES)
@pytest.mark.parametrize("data", [b"no image", encode_image(RED_BLUE, "JPEG")[:300]])
def test_another_texture_that_cannot_be_read_has_no_effect(
    blender: BlenderProcess, look: Look, tmp_path: Path, name: str, data: bytes
):
    """Its factor alone would make the surface a lamp, a mirror or glass."""
    values = OTHER_TEXTURES[name]

    def material(builder: GltfBuilder) -> int:
        slot = values | {name: {"index": builder.texture(data)}}
        extension = EXTENSION_OF.get(name)
        index = builder.material((0.5, 0.2, 0.1, 1))
        item = builder.document["materials"][index]
        if extension:
            item["extensions"] = {extension: slot}
        elif name == "metallicRoughnessTexture":
            del item["pbrMetallicRoughness"]["metallicFactor"]
            item["pbrMetallicRoughness"] |= slot
        else:
            item |= slot
        return index

    expected = plain(look, 0.5, 0.2, 0.1)
    path = square(material).save(tmp_path / "object.glb", list(EXTENSION_OF.values()))
    (note,) = blender.open(path, "cube").notes
    assert note.startswith(f"material 0: {name} is ignored: image 0 ")
    views, _ = blender.render([FRONT], CONFIG)
    np.testing.assert_allclose(colour(views), expected, atol=LEVELS)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_non_finite_normals_are_replaced(look: Look, number: float):
    """Normals that are NaN or infinite would leave a surface dark."""
    expected = plain(look, 0.5, 0.2, 0.1)
    odd = np.full((4, 3), number)
    views = look(square(lambda builder: builder.material((0.5, 0.2, 0.1, 1)), NORMAL=odd))
    np.testing.assert_allclose(colour(views), expected, atol=LEVELS)


def extended(name: str, **values: Any) -> dict[str, Any]:
    return {"extensions": {name: values}}


METAL = {"pbrMetallicRoughness": {"baseColorFactor": [0.5, 0.2, 0.1, 1], "roughnessFactor": 0.5}}
STRENGTH, COAT = "KHR_materials_emissive_strength", "KHR_materials_clearcoat"
UNLIKELY: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "emission below 0": ({"emissiveFactor": [-1, -1, -1]}, {}),
    "emission beyond float32": (
        {"emissiveFactor": [1, 1, 1]} | extended(STRENGTH, emissiveStrength=1e39),
        {"emissiveFactor": [1, 1, 1]} | extended(STRENGTH, emissiveStrength=1e3),
    ),
    "a coat beyond float32": (
        extended(COAT, clearcoatFactor=1e39),
        extended(COAT, clearcoatFactor=1),
    ),
    "an attenuation distance of 0": (
        extended("KHR_materials_volume", thicknessFactor=1, attenuationDistance=0),
        {},
    ),
    "an anisotropic metal": (
        METAL | extended("KHR_materials_anisotropy", anisotropyStrength=0.5),
        METAL,
    ),
}
"""Materials, and those that they should look like."""


@pytest.mark.parametrize("name", UNLIKELY)
def test_unlikely_values_are_not_black(look: Look, name: str):
    """Blender would fail, or compute colours that are no numbers."""
    unlikely, likely = (
        look(
            square(lambda builder, values=values: builder.material((0.5, 0.2, 0.1, 1), **values)),
            used=list(values.get("extensions", {})),
        )
        for values in UNLIKELY[name]
    )
    np.testing.assert_allclose(colour(unlikely), colour(likely), atol=LEVELS)


def test_a_normal_map_of_any_scale_gives_normals(look: Look):
    tilted = np.full((4, 4, 3), (191, 166, 231), dtype=np.uint8)
    for scale in (1e39, -1e39):
        builder = square(
            lambda b, scale=scale: b.material(
                normalTexture={"index": b.texture(tilted), "scale": scale}
            )
        )
        normals = look(builder).normals[0]
        assert np.linalg.norm(normals[SIZE // 2, SIZE // 2], axis=-1) == pytest.approx(1, abs=0.01)


def test_a_material_of_an_unknown_alpha_mode_is_drawn_opaque(look: Look):
    views = look(square(lambda b: b.material(texture=b.texture(THIN_THICK), alphaMode="blend")))
    assert alpha(views, LEFT) == 1
    np.testing.assert_allclose(colour(views, LEFT), plain(look, 1, 0, 0), atol=LEVELS)


def test_a_texture_without_its_coordinates_does_not_use_others(look: Look):
    """It shows its first texel; a normal map without coordinates has no effect."""

    def material(builder: GltfBuilder) -> int:
        tilted = builder.texture(np.full((4, 4, 3), (191, 166, 231), dtype=np.uint8))
        index = builder.material(texture=builder.texture(RED_BLUE))
        return builder.add(
            "materials",
            builder.document["materials"][index]
            | {"normalTexture": {"index": tilted}, "emissiveTexture": {"index": 0, "texCoord": 1}},
        )

    builder = square(material, TEXCOORD_1=[[0, 1], [1, 1], [1, 0], [0, 0]])
    del builder.document["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"]
    views = look(builder)
    left, right = colour(views, LEFT), colour(views, RIGHT)
    np.testing.assert_allclose(left, right, atol=LEVELS)
    normals = views.normals[0][pixels_around(views)]
    np.testing.assert_allclose(normals, np.full((7, 7, 3), [0, -1, 0]), atol=1e-3)


@pytest.mark.parametrize("decal_first", [False, True])
def test_a_decal_in_the_plane_of_a_wall_is_shown_wholly(look: Look, decal_first: bool):
    """Each ray would meet either of the two at random."""
    builder = GltfBuilder()
    mask = builder.material((0, 0, 1, 1), alphaMode="MASK")
    meshes = [
        builder.quad(builder.material((1, 0, 0, 1))),
        builder.quad(mask, corners=((-0.7, -0.5), (0.6, 0.5))),
    ]
    for mesh in reversed(meshes) if decal_first else meshes:
        builder.node(mesh=mesh)
    views = look(builder)
    expected = plain(look, 0, 0, 1)
    for point in (LEFT, (0.0, 0.0), (0.3, 0.2)):
        pixels = views.rgba[0][pixels_around(views, point)][..., :3]
        np.testing.assert_allclose(pixels.reshape(-1, 3).mean(axis=0), expected, atol=LEVELS)
