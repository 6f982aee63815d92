"""Volume rendering: against its oracles, and against geometry with a closed form."""

import numpy as np
import pytest
import torch

from dataset import cameras
from train.models.lrm.nerf import (
    NerfConfig,
    NerfDecoder,
    NerfSynthesizer,
    activate_density,
    limit_to_box,
    march,
    volume_render,
)
from train.models.lrm.rays import (
    SampleJitter,
    Window,
    box_interval,
    camera_rays,
    coarse_depths,
    draw_jitter,
    importance_depths,
    window_intrinsics,
)

CASES = ("half", "half_crop", "half_per_view", "rand_crop")


def synthesizer_of(oracle, **settings):
    """Return a synthesizer with the sizes and weights of the oracle."""
    weights = oracle.with_prefix("state.synthesizer.")
    linears = [name for name in weights if name.endswith(".weight")]
    config = NerfConfig(
        decoder_width=len(weights["decoder.net.0.weight"]),
        decoder_hidden_layers=len(linears) - 1,
        **settings,
    )
    synthesizer = NerfSynthesizer(config, oracle.config["triplane_dim"])
    synthesizer.load_state_dict(weights)
    return synthesizer


def test_the_field_at_points_matches_the_oracle(oracle):
    expected = oracle("nerf_points")
    points = expected["in.points"]
    field = synthesizer_of(expected).field(expected["in.planes"])
    raw, rgb = field(points)
    expected.check(raw, "out.sigma_raw")
    expected.check(activate_density(raw), "out.sigma_activated")
    expected.check(rgb, "out.rgb")
    raw_boxed, rgb_boxed = limit_to_box(field)(points)
    outside = raw_boxed != raw
    assert torch.equal(~outside, expected["out.inside"].bool())
    expected.check(rgb_boxed, "out.rgb_boxed")
    torch.testing.assert_close(raw_boxed, expected["out.sigma_boxed"][..., 0], atol=1e-4, rtol=1e-6)


def test_the_field_on_a_grid_matches_the_oracle(oracle):
    expected = oracle("nerf_points")
    axis = torch.linspace(-1, 1, expected.config["grid"])
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).flatten(0, 2)
    planes = expected["in.planes"]
    raw, rgb = synthesizer_of(expected).field(planes)(grid.expand(len(planes), -1, -1))
    expected.check(activate_density(raw), "out.grid_sigma")
    expected.check(rgb, "out.grid_rgb")


def test_marching_matches_the_oracle(oracle):
    expected = oracle("nerf_march")
    depths = expected["in.depths"][..., 0]
    marched = march(expected["in.densities"][..., 0], expected["in.colors"], depths)
    expected.check(marched.weights, "out.weights")
    expected.check(marched.rgb, "out.rgb_noback")
    expected.check(marched.rgb + (1 - marched.alpha[..., None]), "out.rgb")
    expected.check(marched.distance.clamp(depths.min(), depths.max()), "out.depth")


def test_marching_is_exact_for_extreme_densities():
    depths = torch.linspace(1.0, 2.0, 9).expand(1, 9)
    raw = torch.tensor([[-1e3] * 3 + [1e8] * 6])
    marched = march(raw, torch.full((1, 9, 3), 0.25), depths)
    torch.testing.assert_close(marched.alpha, torch.ones(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(marched.rgb, torch.full((1, 3), 0.25), atol=1e-6, rtol=0)


def published_case(expected, case):
    """Return the synthesizer and its arguments for one case of the oracle `nerf_full`."""
    sizes = expected.config
    render_cameras = expected["in.render_cameras"]
    batch, views, side = *render_cameras.shape[:2], sizes["render_size"]
    window = Window(*sizes["crop"]) if case.endswith("crop") else None
    per_view = window.height * window.width if window else side**2
    synthesizer = synthesizer_of(
        expected,
        samples_per_ray=sizes["samples_per_ray"],
        rays_per_chunk=per_view * (1 if case.endswith("per_view") else views),
        published_sampling=True,
    )
    shape = (batch, views * per_view, sizes["samples_per_ray"] // 2)
    jitter = SampleJitter(offsets=torch.full(shape, 0.5), quantiles=torch.full(shape, 0.5))
    if case.startswith("rand"):
        jitter = SampleJitter(
            offsets=expected["in.jitter"].reshape(shape), quantiles=expected["in.u"].reshape(shape)
        )
    matrix = render_cameras[..., 16:].unflatten(-1, (3, 3))
    intrinsics = torch.stack(
        [matrix[..., 0, 0], matrix[..., 1, 1], matrix[..., 0, 2], matrix[..., 1, 2]], dim=-1
    )
    camera_to_world = render_cameras[..., :16].unflatten(-1, (4, 4))
    return synthesizer, (camera_to_world, intrinsics, (side, side), window, jitter)


@pytest.mark.parametrize("case", CASES)
def test_images_match_the_oracle(oracle, case):
    expected = oracle("nerf_full")
    synthesizer, arguments = published_case(expected, case)
    views = synthesizer(expected["in.planes"], *arguments)
    expected.check(views.rgb, f"out.{case}.images_rgb")
    expected.check(views.alpha, f"out.{case}.images_weight")
    expected.check(views.distance, f"out.{case}.images_depth")


def test_samples_and_gradients_match_the_oracle(oracle):
    expected = oracle("nerf_full")
    synthesizer, arguments = published_case(expected, "rand_crop")
    camera_to_world, intrinsics, size, window, jitter = arguments
    planes = expected["in.planes"].clone().requires_grad_()

    cropped = window_intrinsics(intrinsics, size, window)
    rays = camera_rays(camera_to_world, cropped, (window.height, window.width)).flatten(1, 2)
    near, far = box_interval(rays, published=True)
    expected.check(near, "out.rand_crop.near")
    expected.check(far, "out.rand_crop.far")
    coarse = coarse_depths(near, far, jitter.offsets, published=True)
    expected.check(coarse, "out.rand_crop.depths_coarse")
    points = rays.origins[..., None, :] + coarse[..., None] * rays.directions[..., None, :]
    raw, rgb = limit_to_box(synthesizer.field(planes))(points.flatten(1, 2))
    weights = march(raw.view_as(coarse), rgb.view_as(points), coarse).weights.detach()
    fine = importance_depths(coarse, weights, jitter.quantiles, published=True)
    expected.check(fine, "out.rand_crop.depths_fine")

    views = synthesizer(planes, *arguments)
    value = views.rgb.square().mean() + views.alpha.square().mean() + 0.1 * views.distance.mean()
    value.backward()
    expected.check(planes.grad, "out.grad.planes")
    parameters = dict(synthesizer.named_parameters(prefix="synthesizer"))
    for name in expected.with_prefix("out.grad.synthesizer."):
        expected.check(parameters[f"synthesizer.{name}"].grad, f"out.grad.synthesizer.{name}")


def test_repaired_and_published_sampling_converge_with_many_samples(oracle):
    expected = oracle("nerf_full")
    case = published_case(expected, "half")
    rendered = {}
    for published in (False, True):
        synthesizer = synthesizer_of(expected, samples_per_ray=512, published_sampling=published)
        with torch.no_grad():
            rendered[published] = synthesizer(expected["in.planes"], *case[1][:3])
    torch.testing.assert_close(rendered[False].rgb, rendered[True].rgb, atol=5e-3, rtol=0)
    torch.testing.assert_close(rendered[False].alpha, rendered[True].alpha, atol=5e-3, rtol=0)
    hit = rendered[True].distance > rendered[True].distance.min()
    repaired, published = (rendered[key].distance[hit] for key in (False, True))
    torch.testing.assert_close(repaired, published, atol=0.02, rtol=0)


BALL_CENTRE, BALL_RADIUS = (0.3, -0.25, 0.35), 0.3


def ball(points):
    """Return raw density and colour of an opaque ball off every axis; colour encodes position."""
    inside = (points - torch.tensor(BALL_CENTRE)).norm(dim=-1) < BALL_RADIUS
    return torch.where(inside, 1000.0, -1000.0), (points + 1) / 2


def ball_depth(camera, height, width):
    """Return the ball's planar depth (infinite where a ray misses it) and the surface points.

    The rays are those of `dataset.cameras`.
    """
    origin, directions = cameras.rays(camera, height, width)
    towards = origin - np.array(BALL_CENTRE)
    a = (directions**2).sum(axis=-1)
    b = directions @ towards
    root = b**2 - a * (towards @ towards - BALL_RADIUS**2)
    with np.errstate(invalid="ignore"):
        depth = np.where(root > 0, (-b - np.sqrt(root)) / a, np.inf)
    return torch.from_numpy(depth).float(), torch.from_numpy(origin + depth[..., None] * directions)


@pytest.mark.parametrize("eye", [(2.6, 0.2, 0.6), (-1.0, -2.4, -0.5), (0.4, 1.0, 2.2)])
def test_a_rendered_ball_matches_the_rays_of_dataset_cameras(eye):
    camera = cameras.Camera(
        camera_to_world=cameras.look_at(np.array(eye)),
        intrinsics=np.array([1.0, 1.3, 0.55, 0.44], dtype=np.float32),
    )
    height, width = 48, 62
    rays = camera_rays(
        torch.from_numpy(camera.camera_to_world)[None],
        torch.from_numpy(camera.intrinsics)[None],
        (height, width),
    )
    rendered = volume_render(ball, rays, draw_jitter(rays, 192))
    alpha, depth, distance = (
        image.view(height, width) for image in (rendered.alpha, rendered.depth, rendered.distance)
    )
    rgb = rendered.rgb.view(height, width, 3)
    expected, surface = ball_depth(camera, height, width)
    hit = expected.isfinite()
    assert 0.01 < hit.float().mean() < 0.5
    assert ((alpha > 0.5) != hit).sum() <= 0.05 * hit.sum()
    # The rim is excluded: there a ray is inside the ball for less than one sample interval.
    rim = torch.nn.functional.max_pool2d((~hit).float()[None], 5, stride=1, padding=2)[0] > 0
    interior = ~rim
    assert interior.sum() > 0.3 * hit.sum()
    torch.testing.assert_close(depth[interior], expected[interior], atol=0.02, rtol=0)
    torch.testing.assert_close(
        rgb[interior], ((surface + 1) / 2)[interior].float(), atol=0.02, rtol=0
    )
    cosines = rays.cosines.view(height, width)
    torch.testing.assert_close(
        distance[interior] * cosines[interior], depth[interior], atol=1e-3, rtol=0
    )
    empty = ~hit & (alpha == 0)
    assert (rgb[empty] == 1).all()
    assert (depth[empty] == 0).all()


@pytest.fixture
def scene():
    """Return a random synthesizer, the planes of two objects and three cameras for each."""
    torch.manual_seed(3)
    config = NerfConfig(
        decoder_width=16, decoder_hidden_layers=2, samples_per_ray=16, rays_per_chunk=10**6
    )
    synthesizer = NerfSynthesizer(config, plane_channels=4)
    eyes = np.array([[2.5, 0.3, 1.0], [-1.5, 2.0, 0.2], [0.2, -2.4, -1.0]])
    camera_to_world = torch.stack([torch.from_numpy(cameras.look_at(eye)) for eye in eyes])
    intrinsics = torch.tensor([[1.0, 1.0, 0.5, 0.5], [0.8, 1.4, 0.45, 0.5], [2.0, 2.0, 0.5, 0.6]])
    return {
        "synthesizer": synthesizer,
        "planes": torch.randn(2, 3, 4, 8, 8) * 2,
        "camera_to_world": camera_to_world.expand(2, -1, -1, -1),
        "intrinsics": intrinsics.expand(2, -1, -1),
    }


def render(scene, size, window=None, randomness=None, **settings):
    """Render the scene with changed settings and the same weights."""
    synthesizer = scene["synthesizer"]
    changed = NerfSynthesizer(synthesizer.config.model_copy(update=settings), plane_channels=4)
    changed.load_state_dict(synthesizer.state_dict())
    views = changed(
        scene["planes"], scene["camera_to_world"], scene["intrinsics"], size, window, randomness
    )
    return changed, views


def images_of(views):
    return {name: getattr(views, name) for name in ("rgb", "alpha", "depth", "distance")}


def test_shapes_and_ranges(scene):
    _, views = render(scene, (6, 9))
    shapes = {name: tuple(image.shape) for name, image in images_of(views).items()}
    assert shapes == {"rgb": (2, 3, 3, 6, 9)} | dict.fromkeys(
        ("alpha", "depth", "distance"), (2, 3, 1, 6, 9)
    )
    assert views.alpha.max() > 0.01
    assert views.alpha.max() <= 1 + 1e-6
    assert views.rgb.min() >= -0.002
    assert views.rgb.max() <= 1.002


def test_a_rendered_window_equals_that_part_of_the_whole_image(scene):
    _, whole = render(scene, (14, 12))
    _, part = render(scene, (14, 12), window=Window(5, 2, 6, 7))
    for name, image in images_of(whole).items():
        torch.testing.assert_close(
            getattr(part, name), image[..., 5:11, 2:9], atol=1e-4, rtol=0, msg=name
        )


@pytest.mark.parametrize("rays_per_chunk", [1, 7, 54, 100])
def test_the_chunk_size_does_not_change_the_images(scene, rays_per_chunk):
    _, whole = render(scene, (6, 9), randomness=torch.Generator().manual_seed(5))
    _, parts = render(
        scene,
        (6, 9),
        randomness=torch.Generator().manual_seed(5),
        rays_per_chunk=rays_per_chunk,
    )
    for name, image in images_of(whole).items():
        torch.testing.assert_close(getattr(parts, name), image, msg=name)


def test_checkpointing_changes_no_gradient_and_stores_less(scene):
    gradients, stored = [], []
    scene["planes"].requires_grad_()
    for recompute in (False, True):
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t
        ):
            synthesizer, views = render(
                scene,
                (8, 8),
                randomness=torch.Generator().manual_seed(5),
                rays_per_chunk=50,
                checkpoint_chunks=recompute,
            )
        (views.rgb.square().mean() + views.alpha.mean() + views.depth.mean()).backward()
        stored.append(sum(saved))
        gradients.append([scene["planes"].grad.clone()])
        gradients[-1] += [parameter.grad for parameter in synthesizer.parameters()]
        scene["planes"].grad = None
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain)
        assert plain.abs().max() > 0
    assert stored[1] < stored[0] / 5


def test_random_samples_depend_only_on_the_generator(scene):
    rendered = [
        render(scene, (4, 4), randomness=generator)[1].rgb
        for generator in (
            None,
            None,
            torch.Generator().manual_seed(1),
            torch.Generator().manual_seed(1),
            torch.Generator().manual_seed(2),
        )
    ]
    assert torch.equal(rendered[0], rendered[1])
    assert torch.equal(rendered[2], rendered[3])
    assert not torch.equal(rendered[2], rendered[4])


def test_each_view_has_its_own_field_of_view(scene):
    _, batched = render(scene, (10, 10))
    for view in range(3):
        single = dict(scene)
        single["camera_to_world"] = scene["camera_to_world"][:, view : view + 1]
        single["intrinsics"] = scene["intrinsics"][:, view : view + 1]
        _, views = render(single, (10, 10))
        torch.testing.assert_close(views.rgb[:, 0], batched.rgb[:, view])
    hits = (batched.alpha > 0).float().mean(dim=(0, 2, 3, 4))
    assert hits[2] > hits[0]


def test_a_camera_that_faces_away_from_the_box_shows_white(scene):
    away = scene["camera_to_world"].clone()
    away[..., :3, 3] *= 2
    away[..., :3, 0] *= -1
    away[..., :3, 2] *= -1
    _, views = render(scene | {"camera_to_world": away}, (5, 5))
    assert (views.rgb == 1).all()
    assert not views.alpha.any()
    assert not views.depth.any()
    assert not views.distance.any()


def test_rays_of_a_camera_in_the_box_start_at_the_camera():
    fog = lambda points: (torch.full(points.shape[:-1], 1.0), points * 0)  # noqa: E731
    inside = torch.eye(4)[None, None]
    rays = camera_rays(inside, torch.tensor([[[9.0, 9.0, 0.5, 0.5]]]), (1, 1)).flatten(1, 2)
    rendered = volume_render(fog, rays, draw_jitter(rays, 512))
    length = 1 - 1 / 256
    expected = 1 - np.exp(-np.log(2) * length)
    assert abs(rendered.alpha.item() - expected) < 2e-3


def test_the_depth_of_a_translucent_sheet_is_that_of_an_opaque_one():
    def sheet(points):
        raw = torch.where((points[..., 1] - 0.4).abs() < 0.1, 3.0, -1000.0)
        return raw, torch.zeros_like(points)

    camera_to_world = torch.from_numpy(cameras.look_at(np.array([0.0, -2.5, 0.0])))[None]
    intrinsics = torch.from_numpy(cameras.intrinsics_from_fov(20.0))[None]
    rays = camera_rays(camera_to_world, intrinsics, (3, 3))
    rendered = volume_render(sheet, rays, draw_jitter(rays, 512))
    assert (rendered.alpha > 0.3).all()
    assert (rendered.alpha < 0.4).all()
    torch.testing.assert_close(rendered.depth, torch.full((1, 9), 2.9), atol=0.02, rtol=0)
    expected = rendered.alpha * rendered.depth / rays.cosines
    torch.testing.assert_close(rendered.distance, expected)


def test_density_and_colour_are_the_published_functions():
    assert abs(activate_density(torch.tensor(1.0)).item() - np.log(2)) < 1e-6
    decoder = NerfDecoder(6, 8, 2)
    torch.nn.init.zeros_(decoder.net[-1].weight)
    with torch.no_grad():
        decoder.net[-1].bias.copy_(torch.tensor([2.5, -100.0, 0.0, 100.0]))
        raw, rgb = decoder(torch.randn(3, 6))
    assert raw.tolist() == [2.5] * 3
    torch.testing.assert_close(rgb, torch.tensor([[-0.001, 0.5, 1.001]]).expand(3, 3))
