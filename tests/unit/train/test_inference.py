"""From six views to a mesh file: cameras, surface, colours, texture, formats, query."""

import math

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from core.errors import BadInput
from render.rigs import get_rig
from tests.support import small_lrm
from tests.support.topology import defects
from train.inference.families import open_model
from train.inference.family import ModelOptions
from train.inference.input_pictures import on_white, read_pictures
from train.inference.mesh_files import write_mesh
from train.inference.query import has_mask, prepare_query
from train.inference.reconstruction import Reconstructor, Shape
from train.inference.six_views import (
    camera_tensors,
    input_cameras,
    read_views,
    stack_views,
)
from train.inference.texture import bake
from train.models.lrm.nerf import activate_density
from train.models.zero123plus.latents import tile_views

CAMERAS = camera_tensors(input_cameras())


def open_small(model, changes, path, kind="mesh", **options) -> Reconstructor:
    weights = small_lrm.write_file(model, path / "model.safetensors")
    model_sizes = {"preset": small_lrm.PRESET, "changes": changes}
    return open_model(kind, weights, ModelOptions(**model_sizes, **options))


@pytest.fixture(scope="module")
def shape(tmp_path_factory) -> Shape:
    folder = tmp_path_factory.mktemp("model")
    model = open_small(small_lrm.mesh_model(), small_lrm.MESH, folder)
    return model.reconstruct(small_lrm.pictures(), *CAMERAS).shape


def test_the_input_cameras_are_those_of_the_rig_relative_to_its_query():
    query, *targets = get_rig("zero123plus").cameras("objaverse:x")
    x, y = query.camera_to_world[:2, 3]
    inputs = input_cameras(1 / math.tan(math.radians(15)), math.degrees(math.atan2(y, x)))
    for camera, target in zip(inputs, targets, strict=True):
        assert np.allclose(camera.camera_to_world, target.camera_to_world, atol=1e-5)
        assert np.allclose(camera.intrinsics, target.intrinsics)
    distances = [np.linalg.norm(camera.camera_to_world[:3, 3]) for camera in input_cameras()]
    assert np.allclose(distances, 4)


def test_a_sheet_and_a_folder_give_the_same_views(tmp_path):
    views = small_lrm.pictures(side=20)
    small_lrm.write_views(tmp_path / "views", side=20)
    sheet = (tile_views(views)[0].movedim(0, -1) * 255).round().byte().numpy()
    Image.fromarray(sheet).save(tmp_path / "views" / "sheet.png")
    of_sheet = stack_views(read_views(tmp_path / "views" / "sheet.png"), 20)
    of_folder = stack_views(read_views(tmp_path / "views"), 20)
    assert torch.equal(of_sheet, of_folder)
    assert torch.allclose(of_folder, views, atol=0.5 / 255 + 1e-6)


def test_invalid_views_are_named(tmp_path):
    small_lrm.write_views(tmp_path)
    (tmp_path / "view-3.png").unlink()
    with pytest.raises(BadInput, match="has 5 views; a mesh needs exactly 6"):
        read_views(tmp_path)
    with pytest.raises(BadInput, match=r"32 x 32 pixels, not a sheet of 6 .* lrm multiview"):
        read_views(tmp_path / "view-0.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(BadInput, match=r"text\.png: is not a picture"):
        read_views(tmp_path / "text.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "view-0.png").read_bytes()[:900])
    with pytest.raises(BadInput, match=r"half\.png: cannot be read"):
        read_views(tmp_path / "half.png")
    with pytest.raises(BadInput, match="no such picture"):
        read_views(tmp_path / "gone.png")
    white = [Image.new("RGBA", (8, 8), "white")]
    with pytest.raises(BadInput, match="view 0 shows nothing"):
        stack_views(white, 8)
    with pytest.raises(BadInput, match="8 x 9 pixels, not square"):
        stack_views([Image.new("RGB", (8, 9))], 8)


def test_transparent_pixels_become_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 128))
    through = 1 - 128 / 255
    assert torch.allclose(on_white(image)[:, 0], torch.tensor([[1, 1], [1, through], [1, through]]))


def test_the_surface_is_closed_and_oriented_outward(shape):
    assert defects(torch.from_numpy(shape.faces)) == []
    mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert 0.5 < mesh.volume < 7


def test_the_surface_of_stage_one_has_density_10(tmp_path):
    nerf = small_lrm.nerf_model()
    model = open_small(nerf, small_lrm.NERF, tmp_path, "nerf", resolution=48)
    shape = model.reconstruct(small_lrm.pictures(), *CAMERAS).shape
    planes = nerf.forward_planes(small_lrm.pictures(), *CAMERAS)
    assert defects(torch.from_numpy(shape.faces)) == []
    inner = torch.from_numpy(shape.vertices[np.abs(shape.vertices).max(axis=1) < 0.93])
    assert len(inner) > 500
    raw, rgb = nerf.synthesizer.field(planes)(inner[None])
    density = activate_density(raw[0])
    assert density.median().item() == pytest.approx(10, abs=0.05)
    colours = torch.from_numpy(shape.colour(inner.numpy()))
    assert torch.allclose(colours, rgb[0].detach().clamp(0, 1), atol=1e-5)
    with pytest.raises(BadInput, match="resolution is for nerf"):
        open_small(small_lrm.mesh_model(), small_lrm.MESH, tmp_path, resolution=8)


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply"])
def test_a_mesh_file_holds_the_mesh_and_its_colours(shape, tmp_path, suffix):
    written = write_mesh(shape, tmp_path / f"mesh{suffix}", azimuth=0)
    assert written.watertight
    assert (written.vertices, written.faces) == (len(shape.vertices), len(shape.faces))
    mesh = trimesh.load_mesh(tmp_path / f"mesh{suffix}", process=False)
    x, y, z = shape.vertices.T
    expected = shape.vertices if suffix == ".ply" else np.stack([x, z, -y], axis=1)
    assert np.allclose(mesh.vertices, expected, atol=1e-6)
    assert np.array_equal(mesh.faces, shape.faces)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(written.volume, rel=1e-4)
    rgb = shape.colour(shape.vertices)
    assert np.ptp(rgb) > 0.3
    if suffix == ".glb":
        # Vertex colours of glTF are linear, and trimesh stores eight bits of them.
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        assert np.allclose(mesh.visual.vertex_colors[:, :3] / 255, linear, atol=1 / 255)
    else:
        assert np.allclose(mesh.visual.vertex_colors[:, :3] / 255, rgb, atol=0.6 / 255)


@pytest.mark.parametrize("suffix", [".glb", ".obj"])
def test_a_texture_shows_the_colours_of_the_surface(shape, tmp_path, suffix):
    path, *others = tmp_path / f"a mesh{suffix}", tmp_path / "a mesh.png", tmp_path / "a_mesh.png"
    for other in others:
        other.write_bytes(b"the picture that the mesh was made of")
    write_mesh(shape, path, texture=512, azimuth=-90)
    assert {other.read_bytes() for other in others} == {b"the picture that the mesh was made of"}
    mesh = trimesh.load_mesh(path, process=False)
    material = mesh.visual.material
    image = material.baseColorTexture if suffix == ".glb" else material.image
    assert image.size == (512, 512)
    # Read with the file's UVs and pixels, at the centre of each triangle and at its corners.
    # From glTF's axes to the world's, for a mesh with the query in front.
    to_world = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    uv, corners = mesh.visual.uv[mesh.faces], mesh.triangles @ to_world.T
    centre_colours = shape.colour(corners.mean(axis=1))
    texels = sample_texture(image, uv.mean(axis=1))
    assert np.abs(texels - centre_colours).mean() < 0.02
    at_vertices = shape.colour(mesh.vertices @ to_world.T)
    assert np.abs(sample_texture(image, mesh.visual.uv) - at_vertices).mean() < 0.03
    # Colours of other points differ clearly.
    assert np.abs(texels - np.roll(centre_colours, 50, axis=0)).mean() > 0.04


def sample_texture(image: Image.Image, uv: np.ndarray) -> np.ndarray:
    pixels = np.asarray(image.convert("RGB")) / 255
    columns = np.clip(uv[:, 0] * image.width, 0, image.width - 1).astype(int)
    rows = np.clip((1 - uv[:, 1]) * image.height, 0, image.height - 1).astype(int)
    return pixels[rows, columns]


def test_texture_charts_do_not_overlap_and_triangles_are_unchanged(shape):
    baked = bake(shape, 256)
    corners = shape.vertices[baked.source_vertices][baked.faces]
    assert np.array_equal(corners, shape.vertices[shape.faces])
    assert baked.uv.min() >= 0
    assert baked.uv.max() <= 1
    a, b, c = (baked.uv[baked.faces[:, i]].astype(float) for i in range(3))
    first, second = b - a, c - a
    area = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).sum() / 2
    assert 0.1 < area < 1


def test_the_mesh_is_rotated_so_that_the_query_is_in_front(shape, tmp_path):
    write_mesh(shape, tmp_path / "mesh.glb", azimuth=-90)
    vertices = trimesh.load_mesh(tmp_path / "mesh.glb", process=False).vertices
    # The world's +x, where the query's camera is, becomes glTF's +z; +z remains up.
    assert np.allclose(vertices[:, 2], shape.vertices[:, 0], atol=1e-6)
    assert np.allclose(vertices[:, 1], shape.vertices[:, 2], atol=1e-6)
    assert np.allclose(vertices[:, 0], shape.vertices[:, 1], atol=1e-6)


def test_invalid_file_names_and_texture_sizes_are_errors_before_anything_is_written(
    shape, tmp_path
):
    for name, texture, cause in (
        ("mesh.stl", None, "written as .glb, .obj, .ply"),
        ("mesh.ply", 64, "holds vertex colours"),
        ("mesh.glb", 3, "give 16 to 8192 texels"),
    ):
        with pytest.raises(BadInput, match=cause):
            write_mesh(shape, tmp_path / name, texture=texture)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_mesh_is_an_error(tmp_path):
    model = open_small(small_lrm.mesh_model(empty=True), small_lrm.MESH, tmp_path)
    with pytest.raises(BadInput, match="empty mesh"):
        assert model.reconstruct(small_lrm.pictures(), *CAMERAS).shape


def test_a_model_is_loaded_from_a_file_a_run_or_a_checkpoint(tmp_path):
    model, images = small_lrm.mesh_model(), small_lrm.pictures()
    run = small_lrm.write_run(model, small_lrm.MESH, tmp_path / "run")
    expected = open_small(model, small_lrm.MESH, tmp_path).reconstruct(images, *CAMERAS).shape
    for source in (run, run / "checkpoints" / "step-00000007"):
        shape = open_model("mesh", source).reconstruct(images, *CAMERAS).shape
        assert np.array_equal(shape.vertices, expected.vertices)
        assert np.array_equal(shape.faces, expected.faces)
    with pytest.raises(BadInput, match="the run stores the model's sizes"):
        open_model("mesh", run, ModelOptions(preset="tiny"))
    with pytest.raises(BadInput, match="is a model of mesh: give it as --use mesh:"):
        open_model("nerf", run)
    with pytest.raises(BadInput, match="is not a run with an intact checkpoint"):
        open_model("mesh", tmp_path)
    with pytest.raises(BadInput, match="no such checkpoint"):
        open_model("mesh", tmp_path / "gone")


def test_the_preset_of_a_weight_file_is_detected_from_its_shapes(tmp_path):
    from train.models.lrm.lrm import MeshLRM, mesh_preset

    torch.manual_seed(0)
    file = small_lrm.write_file(MeshLRM(mesh_preset("tiny")), tmp_path / "tiny.ckpt")
    assert open_model("mesh", file).image_size == 64
    other = small_lrm.write_file(small_lrm.mesh_model(), tmp_path / "other.safetensors")
    with pytest.raises(BadInput, match="fits none of the presets base, large, small, tiny"):
        open_model("mesh", other)
    with pytest.raises(BadInput, match="does not fit the model"):
        open_model("mesh", other, ModelOptions(preset="tiny"))


def ring(background, *, alpha: bool = False) -> Image.Image:
    """Draw a red ring, off-centre and wider than high; its hole has the background's colour."""
    y, x = np.mgrid[:90, :120].astype(float)
    distance = np.hypot((x - 70) / 1.5, y - 40)
    body = (distance < 20) & (distance > 8)
    pixels = np.zeros((90, 120, 4), dtype=np.uint8)
    pixels[:] = (*background, 255)
    pixels[body] = (200, 30, 40, 255)
    if alpha:
        pixels[..., 3] = body * 255
    return Image.fromarray(pixels)


def test_the_query_is_masked_by_alpha_and_centred():
    query = prepare_query(ring((9, 9, 9), alpha=True))
    assert query.background == "alpha"
    assert query.image.width == query.image.height
    mask = np.asarray(query.image)[..., 3] > 0
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    side = query.image.width
    assert abs(columns[0] + columns[-1] + 1 - side) <= 1
    assert abs(rows[0] + rows[-1] + 1 - side) <= 1
    assert len(columns) / side == pytest.approx(0.85, abs=0.01)
    assert np.allclose(on_white(query.image)[:, side // 2, side // 2], 1)  # the hole is white


def test_a_plain_background_is_removed_outside_the_object():
    query = prepare_query(ring((120, 180, 90)))
    assert query.background == "plain"
    pixels = np.asarray(query.image)
    side = query.image.width
    assert pixels[0, 0, 3] == 0
    # An enclosed region may be part of the object, so it is kept.
    assert pixels[side // 2, side // 2].tolist() == [120, 180, 90, 255]


def test_thin_parts_are_kept_and_specks_are_removed():
    pixels = np.full((100, 100, 3), 250, dtype=np.uint8)
    pixels[40:80, 30:60] = 60  # a body
    pixels[20:40, 44:46] = 60  # its antenna, two pixels wide
    pixels[5, 5] = 60  # a speck
    mask = np.asarray(prepare_query(Image.fromarray(pixels)).image)[..., 3] > 0
    rows, columns = mask.any(axis=1).sum(), mask.any(axis=0).sum()
    assert (rows, columns) == (59, 28)  # one pixel is removed at three sides of the body
    wire = np.full((60, 60, 3), 250, dtype=np.uint8)
    wire[10:50, 30:32] = 60
    mask = np.asarray(prepare_query(Image.fromarray(wire)).image)[..., 3] > 0
    assert mask.sum() == 80


def test_alpha_without_a_transparent_background_is_not_a_mask():
    pixels = np.full((100, 100, 4), 255, dtype=np.uint8)
    pixels[30:70, 30:70, :3] = 40
    pixels[:2, :3, 3] = 0  # transparent corner
    pixels[40:50, 40:50, 3] = 200  # translucent part
    image = Image.fromarray(pixels)
    assert not has_mask(image)
    query = prepare_query(image)
    assert query.background == "plain"
    alpha = np.asarray(query.image)[..., 3]
    assert set(np.unique(alpha)) == {0, 255}
    pixels[:20, :, 3] = 0
    assert has_mask(Image.fromarray(pixels))


def test_a_background_that_is_not_plain_is_kept_without_rembg():
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))
    query = prepare_query(noise)
    assert (query.background, query.image.size) == ("kept", (60, 60))
    kept = prepare_query(ring((120, 180, 90)), keep_background=True)
    assert (kept.background, kept.image.size) == ("kept", (120, 120))
    with pytest.raises(BadInput, match="shows nothing"):
        prepare_query(Image.new("RGBA", (20, 20), (0, 0, 0, 0)))
    with pytest.raises(BadInput, match="shows nothing"):
        prepare_query(Image.new("RGB", (20, 20), (10, 20, 30)))


def test_a_picture_is_read_as_viewers_show_it(tmp_path):
    """The EXIF rotation is applied, and floats and 16 or 32 bits of grey are scaled to 8 bits."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40), "red").save(tmp_path / "phone.jpg", exif=exif)
    floats = np.full((4, 4), 0.5, dtype=np.float32)
    Image.fromarray(floats).save(tmp_path / "floats.tiff")
    wide = np.full((4, 4), 2**30, dtype=np.int32)
    wide[1] = 2**29
    Image.fromarray(wide).save(tmp_path / "wide.tiff")
    grey = np.full((4, 4), 2000, dtype=np.uint16)
    grey[1] = 42000
    Image.fromarray(grey).save(tmp_path / "grey.png")
    names = ("phone.jpg", "floats.tiff", "wide.tiff", "grey.png")
    phone, *others = read_pictures([tmp_path / name for name in names])
    assert phone.size == (40, 60)
    floats, wide, pixels = (np.asarray(picture) for picture in others)
    assert floats[0, 0].tolist() == [128] * 3 + [255]
    assert wide[:2, 0, 0].tolist() == [255, 128]
    assert pixels[0, 0].tolist() == [8, 8, 8, 255]
    assert pixels[1, 0].tolist() == [163, 163, 163, 255]
