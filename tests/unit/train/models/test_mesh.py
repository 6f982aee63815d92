"""The mesh synthesizer: its oracles, the repair of empty and full shapes, rendered pictures."""

import numpy as np
import pytest
import torch

from dataset import cameras
from tests.support.topology import assert_same_mesh, defects, signed_volume
from train.models.lrm.mesh import MeshConfig, MeshSynthesizer
from train.models.lrm.mesh_fields import GridFeatures
from train.models.lrm.mesh_render import render_mesh, vertex_normals
from train.models.lrm.triplane import sample_planes
from train.models.surfaces.flexicubes import (
    cube_corners,
    find_surface,
    grid_vertices,
    sdf_sign_loss,
    shape_surface,
)
from train.models.surfaces.rasterize import open_rasterizer

TORCH = open_rasterizer("torch", torch.device("cpu"))


def synthesizer_of(oracle, **settings):
    """Return a synthesizer with the oracle's sizes, weights and published behaviour."""
    weights = oracle.with_prefix("state.synthesizer.")
    linears = [n for n in weights if n.startswith("decoder.net_sdf.") and n.endswith("weight")]
    config = MeshConfig(
        decoder_width=len(weights["decoder.net_sdf.0.weight"]),
        decoder_hidden_layers=len(linears) - 1,
        grid_resolution=oracle.config["grid_res"],
        grid_size=oracle.config["grid_scale"],
        rasterizer="torch",
        **{"published_repair": True, "published_weights": True, "published_grid": True} | settings,
    )
    synthesizer = MeshSynthesizer(config, oracle.config["triplane_dim"])
    synthesizer.load_state_dict(weights, strict=True)
    return synthesizer


def test_fields_match_the_oracle(oracle):
    expected = oracle("mesh_fields")
    synthesizer = synthesizer_of(expected)
    decoder, resolution = synthesizer.decoder, expected.config["grid_res"]
    grid = grid_vertices(resolution, expected.config["grid_scale"], published=True)
    assert torch.equal(grid, expected["out.grid_verts"])
    corners = cube_corners(torch.arange(resolution**3), resolution)
    assert torch.equal(corners, expected["out.cubes"].long())
    axis = grid[: resolution + 1, 2]
    all_vertices = torch.arange(len(grid))
    for index, planes in enumerate(expected["in.planes"]):
        features = GridFeatures(planes, axis)
        vertex_features = features.at(all_vertices)
        torch.testing.assert_close(vertex_features, sample_planes(planes[None], grid[None])[0])
        fields = {
            "sdf_raw": features.evaluate(decoder.net_sdf, 100, False)[:, None],
            "weight": decoder.weights(features.at(corners)),
            "rgb": decoder.colour(planes, expected["in.points"][index]),
            "ok.deformation": decoder.deformation(vertex_features, resolution),
        }
        for name, values in fields.items():
            torch.testing.assert_close(
                values, expected[f"out.{name}"][index], atol=1e-4, rtol=0, msg=name
            )


@pytest.mark.parametrize("case", ["ok", "repair"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_geometry_matches_the_oracle(oracle, case, mode):
    expected = oracle("mesh_fields")
    synthesizer = synthesizer_of(expected)
    planes = expected["in.planes" if case == "ok" else "in.planes_repair"]
    geometry = synthesizer.geometry(planes, centred=mode == "train")
    expected.check(geometry.sdf[..., None], f"out.{case}.sdf")
    expected.check(geometry.deviation, f"out.{case}.{mode}.surface_reg")
    expected.check(geometry.weight_size, f"out.{case}.{mode}.weight_reg")
    assert torch.equal(geometry.repaired, expected[f"out.{case}.repair_reg"] > 0)
    for index, surface in enumerate(geometry.surfaces):
        name = f"out.{case}.{mode}"
        vertices, faces = expected[f"{name}.verts_{index}"], expected[f"{name}.faces_{index}"]
        assert_same_mesh(surface, vertices, faces, f"{name} {index}", tolerance=1e-4)


@pytest.mark.parametrize("recompute", [True, False])
def test_gradients_match_the_oracle(oracle, recompute):
    expected = oracle("mesh_fields")
    synthesizer = synthesizer_of(expected, checkpoint_chunks=recompute, points_per_chunk=500)
    planes = expected["in.planes"].clone().requires_grad_()
    geometry = synthesizer.geometry(planes)
    size = sum(surface.vertices.square().mean() for surface in geometry.surfaces)
    (size + geometry.deviation + geometry.weight_size).backward()
    expected.check(planes.grad, "out.grad.planes", tolerance=1e-3)
    parameters = dict(synthesizer.named_parameters(prefix="synthesizer"))
    for name in expected.with_prefix("out.grad.synthesizer."):
        full = f"synthesizer.{name}"
        expected.check(parameters[full].grad, f"out.grad.{full}", tolerance=1e-3)


def test_surface_colours_match_the_oracle(oracle):
    expected = oracle("mesh_fields")
    synthesizer = synthesizer_of(expected)
    for index, planes in enumerate(expected["in.planes"]):
        mask = expected["in.hard_mask"][index, ..., 0] > 0
        image = torch.ones_like(expected["out.tex_white"][index])
        points = expected["in.tex_pos"][index][mask]
        image = image.index_put((mask,), synthesizer.colour(planes, points)).clamp(0, 1)
        torch.testing.assert_close(
            image, expected["out.tex_white"][index], atol=1e-4, rtol=0, msg=str(index)
        )


def test_vertex_normals_match_the_oracle(oracle):
    expected = oracle("mesh_camera")
    normals = vertex_normals(expected["in.verts"], expected["in.faces"])
    expected.check(normals, "out.vertex_normals")


class FixedDistances(MeshSynthesizer):
    """A synthesizer with fixed distances, which do not depend on the triplanes."""

    def __init__(self, sdf, **settings):
        torch.manual_seed(0)
        resolution = round(len(sdf) ** (1 / 3)) - 1
        config = {"grid_resolution": resolution, "decoder_width": 16, "rasterizer": "torch"}
        super().__init__(MeshConfig(**config | settings), 4)
        self.sdf = sdf

    def distances(self, planes):
        return self.sdf.expand(len(planes), -1)


def ball(resolution, radius):
    return grid_vertices(resolution, 2.1).norm(dim=1) - radius


PLANES = torch.zeros(1, 3, 4, 8, 8)
VIEWS = (
    torch.from_numpy(
        np.stack([cameras.look_at(cameras.orbit_eye(a, e, 2.8)) for a, e in ((20, 10), (140, -30))])
    )[None],
    torch.from_numpy(np.stack([cameras.intrinsics_from_fov(f) for f in (50, 38)]))[None],
)


def test_views_of_a_ball_match_closed_forms():
    radius = 0.6
    views, geometry = FixedDistances(ball(40, radius))(PLANES, *VIEWS, (64, 64))
    assert defects(geometry.surfaces[0].faces) == []
    for view in range(2):
        camera = cameras.Camera(
            camera_to_world=VIEWS[0][0, view].numpy(), intrinsics=VIEWS[1][0, view].numpy()
        )
        origin, directions = (torch.from_numpy(a) for a in cameras.rays(camera, 64, 64))
        a, b = directions.square().sum(-1), directions @ origin
        inside = b**2 - a * (origin @ origin - radius**2)
        depth = (-b - inside.clamp(min=0).sqrt()) / a
        normals = ((origin + depth[..., None] * directions) / radius).movedim(-1, 0)
        inner = inside > 0.1
        outer = inside < -0.1
        torch.testing.assert_close(views.depth[0, view, 0][inner], depth[inner], atol=0.01, rtol=0)
        cosines = (views.normals[0, view] * normals).sum(dim=0)
        assert cosines[inner].min() > 0.98
        assert (views.alpha[0, view, 0][inner] == 1).all()
        for image, background in ((views.alpha, 0), (views.depth, 0), (views.rgb, 1)):
            assert (image[0, view][:, outer] == background).all()
        # The biases and the planes are zero, so every colour is the sigmoid of zero.
        torch.testing.assert_close(views.rgb[0, view][:, inner], torch.full((3, inner.sum()), 0.5))


@pytest.mark.parametrize("published", [False, True])
def test_a_shape_that_reaches_the_border_is_closed_except_with_published_repair(published):
    model = FixedDistances(grid_vertices(16, 2.1)[:, 2] - 0.3, published_repair=published)
    geometry = model.geometry(PLANES, centred=False)
    surface = geometry.surfaces[0]
    assert not geometry.repaired.any()
    if published:
        assert "an edge belongs to one triangle only" in defects(surface.faces)
    else:
        assert defects(surface.faces) == []
        assert surface.vertices.abs().max() < 1.05
        assert signed_volume(surface) == pytest.approx(2 * 2 * 1.3, rel=0.1)


def test_an_empty_shape_grows_and_a_full_one_shrinks_to_fit_pictures():
    """Gradient descent on the opacity, from an empty grid and from a full one, finds the radius."""
    with torch.no_grad():
        target, _ = FixedDistances(ball(16, 0.6))(PLANES, *VIEWS, (32, 32))
    for start, repaired in ((-0.2, True), (1.9, False)):
        radius = torch.tensor(start, requires_grad=True)
        optimizer = torch.optim.Adam([radius], lr=0.1, betas=(0.5, 0.9))
        for step in range(20):
            views, geometry = FixedDistances(ball(16, radius))(PLANES, *VIEWS, (32, 32))
            if step == 0:
                assert geometry.repaired.tolist() == [repaired]
                assert defects(geometry.surfaces[0].faces) == []
                assert signed_volume(geometry.surfaces[0]) > 0
            optimizer.zero_grad()
            (views.alpha - target.alpha).square().mean().backward()
            optimizer.step()
        assert radius.item() == pytest.approx(0.6, abs=0.05), start


@pytest.mark.parametrize("value", [1.0, -1.0, 0.0])
def test_degenerate_shapes_in_a_batch_give_finite_gradients(value):
    sdf = torch.full((17**3,), value, requires_grad=True)
    model = FixedDistances(sdf)
    batch_cameras = (tensor.expand(2, *tensor.shape[1:]) for tensor in VIEWS)
    views, geometry = model(PLANES.expand(2, -1, -1, -1, -1), *batch_cameras, (24, 24))
    loss = views.rgb.mean() + views.depth.mean() + views.normals.mean() + views.alpha.mean()
    loss = loss + geometry.deviation + geometry.weight_size + sdf_sign_loss(geometry.sdf)
    loss.backward()
    assert loss.isfinite()
    assert sdf.grad.isfinite().all()
    assert sdf.grad.abs().sum() > 0
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all(), name


def test_a_camera_that_faces_away_shows_white():
    away = VIEWS[0].clone()
    away[..., :3, :3] *= torch.tensor([-1.0, 1.0, -1.0])
    views, _ = FixedDistances(ball(16, 0.6))(PLANES, away, VIEWS[1], (8, 8))
    assert (views.rgb == 1).all()
    for image in (views.alpha, views.depth, views.normals):
        assert (image == 0).all()


def published_vertices(resolution, size):
    """Return the grid as the released code makes it: the corners of all cubes, rounded, unique."""
    cubes = torch.ones(resolution, resolution, resolution).nonzero().float() / resolution
    steps = torch.tensor([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)]) / resolution
    corners = (cubes[:, None] + steps).flatten(0, 1)
    return (((corners * 10**5).round() / 10**5).unique(dim=0) - 0.5) * size


@pytest.mark.parametrize("resolution", [*range(5, 14), 32])
def test_the_published_grid_has_the_rounded_vertices_of_the_released_code(resolution):
    expected = published_vertices(resolution, 2.1)
    assert torch.equal(grid_vertices(resolution, 2.1, published=True), expected)
    differs = (grid_vertices(resolution, 2.1) - expected).abs().max() > 1e-6
    assert differs == bool(10**5 % resolution)


@pytest.mark.parametrize("resolution", range(5, 14))
def test_fields_on_the_published_grid_are_those_at_its_vertices(resolution):
    """The distances, and the vertices that the deformation moves, are those of the rounded grid."""
    torch.manual_seed(resolution)
    config = MeshConfig(grid_resolution=resolution, decoder_width=16, published_grid=True)
    model = MeshSynthesizer(config, 4)
    planes = 300 * torch.randn(3, 4, 64, 64)
    vertices = published_vertices(resolution, config.grid_size)
    features = sample_planes(planes[None], vertices[None])[0]
    expected = model.decoder.net_sdf(features)[:, 0]
    distances = model.distances(planes[None])[0]
    torch.testing.assert_close(distances, expected, atol=1e-4, rtol=1e-5)
    inside = torch.where(vertices.norm(dim=1) < 0.7, -1.0, 1.0)
    ball = FixedDistances(inside, published_grid=True).geometry(PLANES, centred=False).surfaces[0]
    expected = shape_surface(find_surface(inside, resolution), vertices, inside)
    torch.testing.assert_close(ball.vertices, expected.vertices, atol=1e-6, rtol=0)


def test_weights_computed_only_near_the_surface_give_the_same_mesh():
    planes = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    meshes = []
    for published in (False, True):
        torch.manual_seed(0)
        config = MeshConfig(
            grid_resolution=16,
            decoder_width=16,
            rasterizer="torch",
            published_weights=published,
        )
        model = MeshSynthesizer(config, 4)
        for net in (model.decoder.net_weight, model.decoder.net_deformation):
            torch.nn.init.normal_(net[-1].weight)
        with torch.no_grad():
            model.decoder.net_sdf[-1].bias -= model.distances(planes).median()
        meshes.append(model.geometry(planes))
    for near, complete in zip(meshes[0].surfaces, meshes[1].surfaces, strict=True):
        assert len(near.faces) > 50
        torch.testing.assert_close(near.vertices, complete.vertices)
        assert torch.equal(near.faces, complete.faces)


def test_the_picture_shows_the_colours_of_the_surface_points():
    vertices = torch.tensor([[-0.5, 0, -0.5], [0.5, 0, -0.5], [0.5, 0, 0.5], [-0.5, 0, 0.5]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    camera = torch.from_numpy(cameras.look_at(cameras.orbit_eye(-90, 0, 2.0)))[None]
    intrinsics = torch.tensor([[1.0, 1.0, 0.5, 0.5]])
    views = render_mesh(
        vertices, faces, lambda points: points + 0.5, camera, intrinsics, (20, 20), TORCH
    )
    # The square covers half the width of the picture: pixels 5 to 15.
    centres = (torch.arange(10) + 0.5) / 10
    rows, columns = torch.meshgrid(centres.flip(0), centres, indexing="ij")
    inner = views.rgb[0, :, 5:15, 5:15]
    torch.testing.assert_close(inner[0], columns, atol=1e-5, rtol=0)
    torch.testing.assert_close(inner[2], rows, atol=1e-5, rtol=0)
    torch.testing.assert_close(views.normals[0, :, 10, 10], torch.tensor([0.0, -1.0, 0.0]))
    assert views.alpha.sum() == 100
