"""FlexiCubes against its oracle, and the topology and gradients of the extracted meshes."""

import numpy as np
import pytest
import torch

from tests.support.topology import (
    assert_same_mesh,
    defects,
    random_field,
    random_surface,
    signed_volume,
)
from train.models.surfaces import flexicubes
from train.models.surfaces.cube_cases import CUBE_EDGES, cube_cases
from train.models.surfaces.flexicubes import (
    CubeWeights,
    find_surface,
    grid_vertices,
    sdf_sign_loss,
    shape_surface,
)

PUBLISHED_SCALE = 0.5
SCALES = {"im": PUBLISHED_SCALE, "up": PUBLISHED_SCALE, "up099": 0.99}


def cases_of(expected):
    """Yield each recorded extraction: resolution, field, weighted, centred, version (its scale)."""
    names = sorted(name for name in expected.tensors if name.endswith(".vertices"))
    for name in names:
        _, resolution, field, mode, version, _ = name.split(".")
        yield int(resolution[1:]), field, mode[0] == "w", mode[1] == "t", version


def inputs_of(expected, resolution, scale, cells, weighted):
    prefix = f"in.r{resolution}"
    vertices = expected[f"{prefix}.verts"]
    if not weighted:
        return vertices, None
    raw = torch.cat(
        [
            expected[f"{prefix}.beta"],
            expected[f"{prefix}.alpha"],
            expected[f"{prefix}.gamma"][:, None],
        ],
        dim=1,
    )
    weights = CubeWeights.from_raw(raw[cells.cubes], scale)
    return vertices + expected[f"{prefix}.deform"], weights


def test_meshes_and_regularizers_match_the_oracle(oracle):
    expected = oracle("flexicubes")
    cases = list(cases_of(expected))
    assert cases
    for resolution, field, weighted, centred, version in cases:
        sdf = expected[f"in.r{resolution}.sdf_{field}"]
        cells = find_surface(sdf, resolution)
        vertices, weights = inputs_of(expected, resolution, SCALES[version], cells, weighted)
        surface = shape_surface(cells, vertices, sdf, weights, centred=centred)
        mode = ("w" if weighted else "n") + ("t" if centred else "e")
        name = f"out.r{resolution}.{field}.{mode}.{version}"
        assert_same_mesh(surface, expected[f"{name}.vertices"], expected[f"{name}.faces"], name)
        deviation = expected[f"{name}.L_dev"].sort().values
        torch.testing.assert_close(
            surface.deviation.sort().values, deviation, atol=1e-5, rtol=1e-4, msg=name
        )


def test_the_grid_matches_the_oracle(oracle):
    expected = oracle("flexicubes")
    for resolution in expected.config["res"]:
        grid = grid_vertices(resolution, 1.0)
        torch.testing.assert_close(grid, expected[f"in.r{resolution}.verts"], atol=1e-5, rtol=0)
        corners = expected[f"in.r{resolution}.cubes"].long()
        # A field whose surface crosses every cube: the cells are the whole grid.
        checkers = 1.0 - 2 * ((grid + 0.5) * resolution).round().sum(dim=1).remainder(2)
        assert torch.equal(find_surface(checkers, resolution).corners, corners)


def test_gradients_match_the_oracle(oracle):
    expected = oracle("flexicubes")
    resolution = min(expected.config["res"])
    prefix = f"in.r{resolution}"
    names = ("deform", "beta", "alpha", "gamma")
    inputs = {name: expected[f"{prefix}.{name}"].clone().requires_grad_() for name in names}
    inputs["sdf"] = expected[f"{prefix}.sdf_noise"].clone().requires_grad_()
    cells = find_surface(inputs["sdf"], resolution)
    raw = torch.cat([inputs["beta"], inputs["alpha"], inputs["gamma"][:, None]], dim=1)
    surface = shape_surface(
        cells,
        expected[f"{prefix}.verts"] + inputs["deform"],
        inputs["sdf"],
        CubeWeights.from_raw(raw[cells.cubes], PUBLISHED_SCALE),
        centred=True,
    )
    (surface.vertices.square().sum() + surface.deviation.mean()).backward()
    for name, tensor in inputs.items():
        expected.check(tensor.grad, f"out.grad.{name}", tolerance=1e-3)


def test_the_sign_regularizer_matches_the_oracle(oracle):
    expected = oracle("sdf_sign_reg")
    sdf = expected["in.sdf"].clone().requires_grad_()
    value = sdf_sign_loss(sdf[..., 0])
    expected.check(value, "out.value")
    value.backward()
    expected.check(sdf.grad, "out.grad")
    # Without a sign change the published loss is NaN.
    assert expected["out.value_no_crossing"].isnan()
    uncrossed = expected["in.sdf_no_crossing"].clone().requires_grad_()
    value = sdf_sign_loss(uncrossed[..., 0])
    assert value == 0
    value.backward()
    assert torch.equal(uncrossed.grad, torch.zeros_like(uncrossed))


def sphere(resolution, radius=0.6, centre=(0.03, -0.02, 0.05)):
    grid = grid_vertices(resolution, 2.0)
    return grid, (grid - torch.tensor(centre)).norm(dim=1) - radius


def test_the_cases_are_those_of_nielson():
    tables = cube_cases()
    assert np.bincount(tables.num_patches).tolist() == [2, 162, 82, 8, 2]
    # Two configurations, C16 and C19, in all their rotated and mirrored forms.
    assert (tables.problematic_face >= 0).sum() == 36
    for case in np.flatnonzero(tables.problematic_face >= 0):
        # An ambiguous case is resolved by its complement, which must not be ambiguous itself.
        assert tables.problematic_face[255 - case] < 0
    for case in range(256):
        cut = [(case >> a & 1) != (case >> b & 1) for a, b in CUBE_EDGES]
        assert ((tables.patch[case] >= 0) == cut).all()
        assert all((tables.patch[case] == n).sum() >= 3 for n in range(tables.num_patches[case]))


@pytest.mark.parametrize("centred", [True, False])
def test_random_fields_give_closed_manifold_oriented_meshes(centred):
    for seed in range(25):
        surface = random_surface(seed, 12, centred=centred)
        assert len(surface.faces) > 100
        assert defects(surface.faces) == []
        assert signed_volume(surface) > 0


def test_unresolved_ambiguous_cubes_give_a_non_manifold_mesh(monkeypatch):
    monkeypatch.setattr(flexicubes, "_resolve", lambda cases: cases)
    all_defects = [defects(random_surface(seed, 12, centred=False).faces) for seed in range(5)]
    assert ["two triangles have an edge in the same direction"] in [
        names[:1] for names in all_defects
    ]


def test_topological_defects_are_detected():
    surface = random_surface(0, 8, centred=False)
    faces = surface.faces
    assert "an edge belongs to one triangle only" in defects(faces[1:])
    flipped = torch.cat([faces[:1].flip(1), faces[1:]])
    assert "two triangles have an edge in the same direction" in defects(flipped)
    other = faces + faces.max() + 1
    pinched = torch.cat([faces, other.where(other != other.min(), faces.min())])
    assert defects(pinched) == ["a vertex joins separate fans"]


def test_the_surface_of_a_sphere_has_its_radius_volume_normals_and_genus():
    grid, sdf = sphere(32)
    surface = shape_surface(find_surface(sdf, 32), grid, sdf)
    centre = torch.tensor([0.03, -0.02, 0.05])
    radii = (surface.vertices - centre).norm(dim=1)
    torch.testing.assert_close(radii, torch.full_like(radii, 0.6), atol=(2 / 32) ** 2, rtol=0)
    assert signed_volume(surface) == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.02)
    corners = surface.vertices[surface.faces]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outward = corners.mean(dim=1) - centre
    assert (torch.cosine_similarity(normals, outward) > 0.5).all()
    # Euler characteristic of a closed surface of genus 0.
    assert len(surface.vertices) - len(surface.faces) / 2 == 2


def test_a_surface_is_open_where_it_leaves_the_grid_and_only_there():
    resolution = 12
    for seed in range(5):
        surface = random_surface(seed, resolution, centred=False, closed=False)
        assert defects(surface.faces)[0] == "an edge belongs to one triangle only"
        edges = torch.cat([surface.faces[:, [i, (i + 1) % 3]] for i in range(3)])
        forward, backward = ({*map(tuple, e.tolist())} for e in (edges, edges.flip(1)))
        border = torch.tensor(sorted(forward - backward)).unique()
        assert (surface.vertices[border].abs().amax(dim=1) > 1 - 3 / resolution).all()


@pytest.mark.parametrize("value", [1.0, -1.0, 0.0])
@pytest.mark.parametrize("centred", [True, False])
def test_a_field_without_surface_is_an_empty_mesh(value, centred):
    grid = grid_vertices(4, 2.0)
    sdf = torch.full((125,), value, requires_grad=True)
    surface = shape_surface(find_surface(sdf, 4), grid, sdf, centred=centred)
    assert surface.vertices.shape == (0, 3)
    assert surface.faces.shape == (0, 3)
    assert surface.deviation.shape == (0,)
    (surface.vertices.sum() + surface.deviation.sum()).backward()
    assert torch.equal(sdf.grad, torch.zeros(125))


def test_subnormal_distances_give_finite_vertices():
    grid = grid_vertices(4, 2.0)
    sdf = random_field(3, 4).sign() * torch.finfo(torch.float32).smallest_normal / 1e6
    sdf[::3] = 0
    surface = shape_surface(find_surface(sdf, 4), grid, sdf)
    assert len(surface.faces)
    assert surface.vertices.isfinite().all()
    assert surface.vertices.abs().max() <= 1


def test_gradient_descent_on_the_field_or_the_grid_moves_the_surface():
    """Optimising only the distances, or only the grid, moves a small sphere to a larger radius."""
    for optimised in ("sdf", "grid"):
        grid, sdf = sphere(8, radius=0.45, centre=(0, 0, 0))
        leaf = (sdf if optimised == "sdf" else grid).clone().requires_grad_()
        optimizer = torch.optim.Adam([leaf], lr=0.01)
        losses = []
        for _ in range(60):
            field, vertices = (leaf, grid) if optimised == "sdf" else (sdf, leaf)
            surface = shape_surface(find_surface(field, 8), vertices, field, centred=True)
            loss = (surface.vertices.norm(dim=1) - 0.55).square().mean()
            loss += 0.01 * surface.deviation.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.1 * losses[0], optimised


def test_weights_are_bounded_and_default_to_ones():
    raw = torch.tensor([[-1e3] * 21, [0.0] * 21, [1e3] * 21])
    weights = CubeWeights.from_raw(raw, scale=0.5)
    for values in (weights.alpha, weights.beta):
        assert values[:, 0].tolist() == [0.5, 1.0, 1.5]
    assert weights.gamma.tolist() == [0.25, 0.5, 0.75]
    grid, sdf = sphere(8)
    cells = find_surface(sdf, 8)
    ones = CubeWeights(
        beta=torch.ones(len(cells.cubes), 12),
        alpha=torch.ones(len(cells.cubes), 8),
        gamma=torch.ones(len(cells.cubes)),
    )
    weighted = shape_surface(cells, grid, sdf, ones, centred=True)
    torch.testing.assert_close(
        weighted.vertices, shape_surface(cells, grid, sdf, centred=True).vertices
    )


def test_gamma_chooses_the_diagonal():
    grid, sdf = sphere(8)
    cells = find_surface(sdf, 8)
    raw = torch.zeros(len(cells.cubes), 21)
    raw[:, -1] = torch.randn(len(raw), generator=torch.Generator().manual_seed(0))
    weights = CubeWeights.from_raw(raw, scale=0.5)
    surface = shape_surface(cells, grid, sdf, weights)
    gamma = weights.gamma[cells.cube_of_dual]
    for quad, halves in zip(cells.quads, surface.faces.view(-1, 6), strict=True):
        even, odd = quad[[0, 2]], quad[[1, 3]]
        shared = {*halves[:3].tolist()} & {*halves[3:].tolist()}
        assert shared == {*(even if gamma[even].prod() > gamma[odd].prod() else odd).tolist()}
