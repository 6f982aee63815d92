"""The rasterizer against rays and areas in closed form, and against nvdiffrast."""

import importlib.util

import numpy as np
import pytest
import torch

from core.errors import BadInput
from dataset import cameras
from train.models.surfaces.flexicubes import find_surface, grid_vertices, shape_surface
from train.models.surfaces.rasterize import clip_positions, open_rasterizer
from train.models.surfaces.rasterize_torch import TorchRasterizer

RASTERIZE = TorchRasterizer()
QUAD = torch.tensor([[0, 1, 2], [0, 2, 3]])


def views_of(*specs):
    """Return camera_to_world and intrinsics of (azimuth, elevation, distance, fov, cx, cy)."""
    eyes = [cameras.orbit_eye(*spec[:3]) for spec in specs]
    matrices = torch.from_numpy(np.stack([cameras.look_at(eye) for eye in eyes]))
    intrinsics = torch.from_numpy(np.stack([cameras.intrinsics_from_fov(s[3]) for s in specs]))
    intrinsics[:, 2:] = torch.tensor([spec[4:] for spec in specs])
    return matrices, intrinsics


VIEWS = views_of((20, 15, 2.7, 50, 0.5, 0.5), (200, -40, 3.1, 35, 0.42, 0.61))


def sphere(resolution, radius=0.7):
    grid = grid_vertices(resolution, 2.0)
    sdf = grid.norm(dim=1) - radius
    surface = shape_surface(find_surface(sdf, resolution), grid, sdf)
    return surface.vertices / surface.vertices.norm(dim=1, keepdim=True) * radius, surface.faces


def pixel_rays(views, size):
    """Return origins, and directions with planar depth 1, of the rays through the pixel centres."""
    view_rays = []
    for matrix, intrinsics in zip(*views, strict=True):
        camera = cameras.Camera(camera_to_world=matrix.numpy(), intrinsics=intrinsics.numpy())
        view_rays.append(cameras.rays(camera, *size))
    origins, directions = zip(*view_rays, strict=True)
    return (
        torch.from_numpy(np.stack(origins))[:, None, None],
        torch.from_numpy(np.stack(directions)),
    )


def rasterize(vertices, faces, views, size):
    return RASTERIZE(clip_positions(vertices, *views), faces, size)


def coverage(raster):
    return raster.antialias(raster.hit[..., None].float())[..., 0]


def test_the_projection_matches_the_oracle(oracle):
    expected = oracle("mesh_camera")
    camera_to_world = torch.linalg.inv(expected["in.w2c"])
    fov = torch.from_numpy(cameras.intrinsics_from_fov(expected.config["fovy"]))
    clip = clip_positions(
        expected["in.verts"], camera_to_world, fov.expand(len(camera_to_world), 4)
    )
    expected.check(clip, "out.clip_pos")
    expected.check(
        -clip[..., 3], "out.view_depth"
    ) if "out.view_depth" in expected.tensors else None
    torch.testing.assert_close(clip[..., 3], -expected["out.view_pos"][..., 2], atol=1e-5, rtol=0)


def test_depth_and_normals_of_a_sphere_match_closed_forms_in_every_view():
    size, radius = (96, 80), 0.7
    vertices, faces = sphere(40, radius)
    raster = rasterize(vertices, faces, VIEWS, size)
    depth = raster.interpolate(clip_positions(vertices, *VIEWS)[..., 3:])[..., 0]
    normals = torch.nn.functional.normalize(raster.interpolate(vertices), dim=-1)
    origins, directions = pixel_rays(VIEWS, size)
    a = directions.square().sum(-1)
    b = (directions * origins).sum(-1)
    inside = b**2 - a * (origins.square().sum(-1) - radius**2)
    expected_hit = inside > 0
    expected_depth = (-b - inside.clamp(min=0).sqrt()) / a
    expected_normals = (origins + expected_depth[..., None] * directions) / radius
    # The polyhedron is a little smaller than the sphere.
    assert (raster.hit & ~expected_hit).sum() == 0
    assert (raster.hit != expected_hit).float().mean() < 0.005
    inner = raster.hit & (inside > 0.05)
    assert inner.sum() > 1000
    torch.testing.assert_close(depth[inner], expected_depth[inner], atol=5e-3, rtol=0)
    torch.testing.assert_close(normals[inner], expected_normals[inner], atol=2e-2, rtol=0)
    assert (depth[~raster.hit] == 0).all()


def test_interpolation_is_perspective_correct_for_triangles_behind_the_camera():
    """On a floor that extends behind the camera, each pixel shows the point that its ray hits."""
    floor = torch.tensor([[-9.0, -9, -0.4], [9, -9, -0.4], [9, 9, -0.4], [-9, 9, -0.4]])
    views = views_of((10, 20, 2.0, 60, 0.5, 0.5), (100, 5, 1.5, 40, 0.3, 0.7))
    size = (60, 70)
    raster = rasterize(floor, QUAD, views, size)
    origins, directions = pixel_rays(views, size)
    depth = (-0.4 - origins[..., 2]) / directions[..., 2]
    points = origins + depth[..., None] * directions
    on_floor = (depth > 0.1) & (points[..., :2].abs() < 9).all(dim=-1)
    assert 0.2 < on_floor.float().mean() < 0.9
    assert torch.equal(raster.hit, on_floor)
    torch.testing.assert_close(
        raster.interpolate(floor)[on_floor], points[on_floor], atol=1e-3, rtol=1e-4
    )
    rendered_depth = raster.interpolate(clip_positions(floor, *views)[..., 3:])[..., 0]
    torch.testing.assert_close(rendered_depth[on_floor], depth[on_floor], atol=1e-3, rtol=1e-4)


def screen(points, depth=2.0):
    """Return clip coordinates of image points (x, y in [-1, 1]) at planar depths."""
    points = torch.as_tensor(points, dtype=torch.float32)
    w = torch.as_tensor(depth, dtype=torch.float32).expand(len(points))
    return torch.cat([points * w[:, None], 0.5 * w[:, None], w[:, None]], dim=1)[None]


def test_no_pixel_falls_between_triangles_of_any_size():
    generator = torch.Generator().manual_seed(0)
    grid = torch.linspace(-1.05, 1.05, 90)
    points = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), dim=-1).flatten(0, 1)
    points += 0.01 * (torch.rand(points.shape, generator=generator) - 0.5)
    start = (torch.arange(89)[:, None] * 90 + torch.arange(89)).flatten()
    faces = torch.cat([start[:, None] + torch.tensor(s) for s in ([0, 1, 91], [0, 91, 90])])
    for size in ((64, 64), (33, 200)):
        raster = RASTERIZE(screen(points, 1 + torch.rand(len(points))), faces, size)
        assert raster.hit.all()
        # Inner edges are not silhouettes, so antialiasing changes nothing.
        noise = torch.rand(1, *size, 3, generator=generator)
        assert torch.equal(raster.antialias(noise), noise)


def test_the_nearest_triangle_is_visible_from_either_side():
    square = [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]
    clip = torch.cat([screen(square, 3.0), screen(square, 2.0), screen(square, 4.0)], dim=1)
    faces = torch.cat([QUAD, QUAD.flip(1) + 4, QUAD + 8])
    raster = RASTERIZE(clip, faces, (16, 16))
    depth = raster.interpolate(clip[..., 3:])[0, :, :, 0]
    expected = torch.zeros(16, 16)
    expected[4:12, 4:12] = 2.0
    torch.testing.assert_close(depth, expected)
    # Two intersecting squares change places where their depths are equal.
    leaning = screen(square, torch.tensor([1.0, 3.0, 3.0, 1.0]))
    crossing = torch.cat([leaning, screen(square, 2.0)], dim=1)
    owner = torch.cat([torch.zeros(4, 1), torch.ones(4, 1)])
    raster = RASTERIZE(crossing, torch.cat([QUAD, QUAD + 4]), (16, 16))
    visible = raster.interpolate(owner)[0, 8, 4:12]
    # 1 / depth is linear in the image: 1 on the left, 1/3 on the right, 1/2 at 3/4 of the way.
    assert visible[:, 0].round().tolist() == [0] * 6 + [1] * 2


@pytest.mark.parametrize("size", [(8, 8), (24, 10)])
def test_straight_edges_give_the_exact_coverage(size):
    height, width = size
    left, right, top, bottom = 2.3, 5.9, 3.25, 6.4
    x = [2 * v / width - 1 for v in (left, right)]
    y = [2 * v / height - 1 for v in (top, bottom)]
    square = [[x[0], y[0]], [x[1], y[0]], [x[1], y[1]], [x[0], y[1]]]
    image = coverage(RASTERIZE(screen(square), QUAD, size))[0]
    columns = torch.tensor([0, 0, 0.7, 1, 1, 0.9, 0, 0, 0, 0])[:width]
    rows = torch.zeros(height)
    rows[3:7] = torch.tensor([0.75, 1, 1, 0.4])
    # The corners are excluded, because they belong to two edges.
    torch.testing.assert_close(image[4, :width], columns, atol=1e-5, rtol=0)
    torch.testing.assert_close(image[:, 4], rows, atol=1e-5, rtol=0)


@pytest.mark.parametrize("resolution", [12, 48])
def test_the_coverage_of_a_sphere_and_its_gradient_match_the_area_of_the_disc(resolution):
    """The area and its derivative match closed forms, for large triangles and for tiny ones."""
    size, radius, distance = (64, 64), 0.7, 2.7
    vertices, faces = sphere(resolution, radius)
    views = views_of((20, 15, distance, 50, 0.5, 0.5))
    scale = torch.tensor(1.0, requires_grad=True)
    area = coverage(rasterize(vertices * scale, faces, views, size)).sum()
    area.backward()

    def disc(r):
        return np.pi * (64 * views[1][0, 0].item()) ** 2 * r**2 / (distance**2 - r**2)

    # An inscribed polyhedron is a little smaller than its sphere.
    tolerance = 0.03 if resolution == 12 else 0.01
    assert area.item() == pytest.approx(disc(radius), rel=tolerance)
    step = 1e-3
    slope = radius * (disc(radius + step) - disc(radius - step)) / (2 * step)
    assert scale.grad.item() == pytest.approx(slope, rel=0.05)


def test_gradients_of_a_silhouette_match_finite_differences():
    size = (48, 64)
    vertices, faces = sphere(12)
    generator = torch.Generator().manual_seed(3)
    weights = torch.nn.functional.interpolate(
        torch.rand(1, 2, 4, 4, generator=generator), size, mode="bicubic"
    )[0]
    directions = torch.randn(4, 3, generator=generator)

    def value(shift):
        # The slope is about 400 per unit of shift.
        raster = rasterize(vertices + shift, faces, VIEWS, size)
        return (coverage(raster) * weights).sum()

    # The mean slope over a shift of a few tenths of a pixel, in which some pixels change face.
    step = 0.02
    for direction in directions:
        slopes = []
        for offset in torch.linspace(-step, step, 9):
            shift = (offset * direction).requires_grad_()
            value(shift).backward()
            slopes.append((shift.grad @ direction).item())
        numeric = (value(step * direction) - value(-step * direction)) / (2 * step)
        assert np.mean(slopes) == pytest.approx(numeric.item(), abs=15)


def test_a_visible_silhouette_blends_with_the_background_and_a_hidden_one_does_not():
    square = torch.tensor([[-0.57, -0.57], [0.57, -0.57], [0.57, 0.57], [-0.57, 0.57]])
    clip = torch.cat([screen(square, 2.0), screen(square * 1.6, 3.0)], dim=1)
    faces = torch.cat([QUAD, QUAD + 4])
    colours = torch.cat([torch.ones(4, 1), torch.full((4, 1), 0.2)])
    raster = RASTERIZE(clip, faces, (20, 20))
    image = raster.antialias(raster.interpolate(colours))[0, 10, :, 0]
    # From the left: background, the far square from pixel 0.88, the near one from pixel 4.3.
    expected = torch.tensor([0.024, 0.2, 0.2, 0.2, 0.76, 1, 1])
    torch.testing.assert_close(image[:7], expected, atol=1e-5, rtol=0)
    swapped = RASTERIZE(torch.cat([clip[:, 4:], clip[:, :4]], dim=1), faces, (20, 20))
    swapped_colours = torch.cat([colours[4:], colours[:4]])
    torch.testing.assert_close(
        swapped.antialias(swapped.interpolate(swapped_colours))[0, 10, :, 0], image
    )
    behind = torch.cat([screen(square, 4.0), screen(square * 1.6, 3.0)], dim=1)
    covered = RASTERIZE(behind, faces, (20, 20))
    noise = torch.rand(1, 20, 20, 1)
    change = covered.antialias(noise) - noise
    assert (change[:, 3:17, 3:17] == 0).all()


def test_attributes_and_positions_get_gradients():
    vertices, faces = sphere(8)
    vertices.requires_grad_()
    colours = torch.rand(len(vertices), 2, requires_grad=True)
    raster = rasterize(vertices, faces, VIEWS, (24, 24))
    raster.antialias(raster.interpolate(colours)).square().sum().backward()
    for leaf in (vertices, colours):
        assert leaf.grad.isfinite().all()
        assert (leaf.grad.abs().sum(dim=1) > 0).float().mean() > 0.5


@pytest.mark.parametrize("count", [0, 3])
def test_without_visible_faces_the_picture_is_empty(count):
    """There are no faces, or the only face is behind the camera."""
    clip = torch.cat([screen([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], -2.0)] * 2)
    raster = RASTERIZE(clip, torch.arange(count).view(-1, 3), (5, 7))
    assert raster.hit.shape == (2, 5, 7)
    assert not raster.hit.any()
    assert torch.equal(raster.interpolate(torch.rand(3, 2)), torch.zeros(2, 5, 7, 2))
    image = torch.rand(2, 5, 7, 3, requires_grad=True)
    raster.antialias(image).sum().backward()
    assert torch.equal(image.grad, torch.ones_like(image))


def test_the_rasterizer_is_chosen_by_name():
    cpu = torch.device("cpu")
    for name in ("auto", "torch"):
        assert isinstance(open_rasterizer(name, cpu), TorchRasterizer)
    with pytest.raises(BadInput, match=r"rasterizer nvdiffrast .*: use rasterizer torch"):
        open_rasterizer("nvdiffrast", cpu)


@pytest.mark.skipif(
    not (torch.cuda.is_available() and importlib.util.find_spec("nvdiffrast")),
    reason="needs CUDA and nvdiffrast",
)
def test_both_rasterizers_agree():
    """With triangles of several pixels, the hits are equal except for ties, and images to 1 %."""
    device = torch.device("cuda")
    size = (256, 256)
    vertices, faces = (tensor.to(device) for tensor in sphere(10))
    views = tuple(tensor.to(device) for tensor in VIEWS)
    results = []
    for name in ("torch", "nvdiffrast"):
        leaf = vertices.clone().requires_grad_()
        clip = clip_positions(leaf, *views)
        raster = open_rasterizer(name, device)(clip, faces, size)
        image = raster.antialias(raster.interpolate(leaf))
        (image.square().sum() + coverage(raster).sum()).backward()
        results.append((raster.hit, image.detach(), leaf.grad))
    (hit, image, gradient), (other_hit, other_image, other_gradient) = results
    assert (hit != other_hit).float().mean() < 1e-4
    both = hit & other_hit
    assert (image - other_image)[both].abs().mean() < 1e-2
    assert (gradient - other_gradient).norm() < 0.1 * gradient.norm()
