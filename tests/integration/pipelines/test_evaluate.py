"""`lrm evaluate` as a user runs it: mesh files against mesh files, a model on a dataset."""

import contextlib
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from dataset.format.geometry import SurfaceGeometry, geometry_path, write_geometry
from dataset.object_record import sample_key
from dataset.snapshots.snapshot import open_snapshot, write_snapshot
from pipelines.cli import main
from pipelines.cli.commands import evaluate as evaluate_command
from pipelines.evaluation.evaluate_meshes import MeshFolder, object_name
from render.process import BlenderProcess
from tests.support import small_lrm
from tests.support.analytic_shapes import letter_block, write_boxes, write_sphere
from tests.support.metric_inputs import sphere_points
from tests.support.sphere_datasets import write_sphere_dataset
from train.evaluation.scores import VIEW_METRICS
from train.evaluation.summary import CONFIDENCE
from train.models.lpips import Lpips

QUICK = ["--render.resolution", "24", "--points", "1500", "--rig", "one2345"]


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    folder = tmp_path_factory.mktemp("truth")
    (folder / "000-000").mkdir()
    write_boxes(folder / "000-000" / "block.glb", letter_block())
    write_sphere(folder / "ball.glb")
    return folder


@pytest.fixture(scope="module")
def mesh_file(tmp_path_factory):
    return small_lrm.write_file(
        small_lrm.mesh_model(), tmp_path_factory.mktemp("weights") / "mesh.safetensors"
    )


@pytest.fixture
def one_child(blender, monkeypatch):
    """Let evaluations share a Blender child instead of starting one each."""
    monkeypatch.setattr(evaluate_command, "_blender", lambda: contextlib.nullcontext(blender))


def evaluate(*words) -> int:
    return main(["evaluate", *map(str, words)])


def summary(out):
    return json.loads((out / "summary.json").read_text())


@pytest.fixture(scope="module")
def lpips_files(tmp_path_factory):
    """Write random LPIPS weights to two files in the published format."""
    folder = tmp_path_factory.mktemp("lpips")
    generator = torch.Generator().manual_seed(0)
    state = Lpips().state_dict()
    vgg = {
        name: torch.randn(value.shape, generator=generator) * 0.05
        for name, value in state.items()
        if name.startswith("features.")
    }
    linear = {
        f"lin{i}.model.1.weight": torch.rand(1, len(state[f"linear.{i}"]), 1, 1) for i in range(5)
    }
    torch.save(vgg, folder / "vgg.pth")
    torch.save(linear, folder / "linear.pth")
    return ["--lpips.vgg", folder / "vgg.pth", "--lpips.linear", folder / "linear.pth"]


def test_ground_truth_has_perfect_scores(truth, lpips_files, tmp_path, capsys):
    """Holds for --self-check and for the same files given as predictions."""
    words = ["--truth", truth, *QUICK, *lpips_files]
    assert evaluate(*words, "--self-check", "--out", tmp_path / "check", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report == summary(tmp_path / "check")
    metrics = report["metrics"]
    assert report["objects"] == 2
    assert metrics["f_score"]["mean"] == 1
    assert 0 < metrics["chamfer"]["mean"] < 0.06  # two samplings of the same surfaces
    assert evaluate(*words, "--meshes", truth, "--out", tmp_path / "same") == 0
    answer = capsys.readouterr()
    assert "PSNR" in answer.out
    assert "2 of 2 objects, 0 failed" in answer.err
    metrics = summary(tmp_path / "same")["metrics"]
    values = {name: metric["mean"] for name, metric in metrics.items() if name != "seconds"}
    assert values == {
        "psnr": 100,
        "ssim": pytest.approx(1, abs=1e-6),
        "lpips": pytest.approx(0, abs=1e-6),
        "mask_iou": 1,
        "chamfer": 0,
        "f_score": 1,
    }
    rows = pq.read_table(tmp_path / "same" / "objects.parquet").to_pydict()
    assert rows["object"] == ["ball", "block"]
    assert rows["chamfer"] == [0, 0]


def test_another_shape_scores_worse_and_missing_meshes_are_named(
    one_child, truth, tmp_path, capsys
):
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    # A ball in place of the block, named by the asset id. Size and position are normalised away.
    write_sphere(meshes / "objaverse:block.glb")
    out = tmp_path / "out"
    assert evaluate("--truth", truth, "--meshes", meshes, *QUICK, "--no-lpips", "--out", out) == 0
    assert "no mesh for 1 object of the ground truth" in capsys.readouterr().out
    report = summary(out)
    assert report["missing"] == ["ball"]
    assert report["objects"] == 1
    metrics = report["metrics"]
    assert metrics["psnr"]["mean"] < 30
    assert metrics["chamfer"]["mean"] > 0.1
    assert metrics["f_score"]["mean"] < 0.9
    assert metrics["psnr"]["low"] is None  # one object has no confidence interval
    assert "lpips" not in metrics


def test_a_malformed_mesh_is_named_and_not_counted(one_child, truth, tmp_path, capsys):
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    (meshes / "block.glb").write_bytes(b"no GLB")
    (meshes / "ball.glb").write_bytes((truth / "ball.glb").read_bytes())
    out = tmp_path / "out"
    assert evaluate("--truth", truth, "--meshes", meshes, *QUICK, "--no-lpips", "--out", out) == 1
    error = capsys.readouterr().err
    assert "1 object failed; the first: block:" in error
    assert "malformed" in error
    assert list(summary(out)["failed"]) == ["block"]
    assert summary(out)["objects"] == 1
    assert pq.read_table(out / "objects.parquet")["error"].to_pylist()[0] is None


@pytest.mark.parametrize("asset_id", ["objaverse:0a1b", "folder:pot", "folder:a/tea pot.v2"])
def test_a_mesh_file_may_be_named_by_asset_id_key_or_uid(asset_id):
    names = [asset_id, sample_key(asset_id), asset_id.partition(":")[2]]
    assert len({object_name(name) for name in names}) == 1


def test_an_evaluated_object_is_not_evaluated_again(one_child, truth, tmp_path, monkeypatch):
    meshes, out = tmp_path / "meshes", tmp_path / "out"
    meshes.mkdir()
    for name in ("ball", "block"):
        write_sphere(meshes / f"{name}.glb")
    words = ["--truth", truth, "--meshes", meshes, *QUICK, "--no-lpips", "--out", out]
    assert evaluate(*words, "--limit", 1) == 0
    with open(out / "rows.jsonl", "a") as log:
        log.write('\n{"identity": "of a kill')
    rendered = []
    render = MeshFolder.render

    def record(self: MeshFolder, name: str, *rest):
        rendered.append(name)
        return render(self, name, *rest)

    monkeypatch.setattr(MeshFolder, "render", record)
    assert evaluate(*words) == 0
    # Ground truth and prediction of the block; the ball was evaluated before.
    assert rendered == ["block", "block"]
    first = pq.read_table(out / "objects.parquet")
    assert first["object"].to_pylist() == ["ball", "block"]
    rendered.clear()
    assert evaluate(*words) == 0
    assert rendered == []
    assert pq.read_table(out / "objects.parquet").equals(first)
    # A changed file or setting is evaluated again.
    write_boxes(meshes / "ball.glb", letter_block())
    assert evaluate(*words) == 0
    assert rendered == ["ball", "ball"]
    assert pq.read_table(out / "objects.parquet")["psnr"][0] != first["psnr"][0]
    assert evaluate(*words, "--threshold", "0.1", "--limit", 1) == 0
    assert rendered == ["ball"] * 4
    # So is another protocol, once.
    for _ in range(2):
        assert evaluate(*words, "--protocol", "pixel2mesh", "--limit", 1) == 0
        assert rendered == ["ball"] * 6
        assert summary(out)["metrics"]["chamfer_squared"]["objects"] == 1


def test_pixel2mesh_compares_shapes_where_they_are_and_renders_no_view(
    one_child, tmp_path, capsys, monkeypatch
):
    """The weights of LPIPS are not needed, either."""
    monkeypatch.setattr(BlenderProcess, "render", None)
    for folder, radius in (("truth", 1.0), ("meshes", 1.05)):
        (tmp_path / folder).mkdir()
        write_sphere(tmp_path / folder / "ball.glb", radius=radius, subdivisions=3)
        write_boxes(tmp_path / folder / "block.glb", letter_block())
    words = ["--truth", tmp_path / "truth", "--meshes", tmp_path / "meshes", *QUICK]
    assert evaluate(*words, "--protocol", "pixel2mesh", "--out", tmp_path / "out") == 0
    assert "no category" in capsys.readouterr().out
    report = summary(tmp_path / "out")
    assert (report["protocol"], report["threshold"]) == ("pixel2mesh", None)
    assert report["category_mean"] is None
    rows = pq.read_table(tmp_path / "out" / "objects.parquet").to_pydict()
    # The true ball's box has the diagonal 2 sqrt(3), which is 0.57 in the paper's unit.
    distance = 0.05 * 0.57 / (2 * 3**0.5)
    assert rows["chamfer_squared"] == [pytest.approx(2000 * distance**2, rel=0.01), 0]
    assert rows["f_score_1e-4"] == [1, 1]
    assert "psnr" not in rows


def with_geometry(root, snapshot, names, categories=()):
    """Create a snapshot of the same samples; those in `names` get the surface of a sphere."""
    points = sphere_points(2_000, 0.8).numpy()
    surface = SurfaceGeometry(
        points=points,
        normals=points / 0.8,
        vertices=points,
        faces=np.arange(1998, dtype=np.int32).reshape(-1, 3),
    )
    samples = []
    for sample in open_snapshot(root, snapshot).samples:
        if sample.asset_id in names:
            path = geometry_path("cube", sample.asset_id[-32:])
            write_geometry(root, path, surface)
            sample = replace(sample, geometry=path, categories=categories)
        samples.append(sample)
    return write_snapshot(root, samples, None)["snapshot"]


@pytest.mark.parametrize("kind", ["mesh", "nerf"])
def test_a_model_is_evaluated_on_a_snapshot(sphere_dataset, mesh_file, tmp_path, capsys, kind):
    root, snapshot = sphere_dataset
    ids = [sample.asset_id for sample in open_snapshot(root, snapshot).samples]
    snapshot = with_geometry(root, snapshot, ids[:2])
    file, changes = mesh_file, small_lrm.MESH
    if kind == "nerf":
        file, changes = tmp_path / "nerf.ckpt", small_lrm.NERF
        small_lrm.write_file(small_lrm.nerf_model(), file)
    model = [f"--{kind}", file, *small_lrm.options(changes)]
    model += ["--resolution", 16] if kind == "nerf" else []
    words = ["--root", root.uri, "--snapshot", snapshot, "--split", "train", "--no-lpips", *model]
    out = tmp_path / "out"
    assert evaluate(*words, "--points", 1500, "--limit", 3, "--out", out) == 0
    metrics = summary(out)["metrics"]
    assert metrics["psnr"]["objects"] == 3
    assert metrics["chamfer"]["objects"] == 2
    for name in ("psnr", "ssim", "mask_iou"):
        metric = metrics[name]
        assert metric["low"] <= metric["mean"] <= metric["high"]
    assert metrics["psnr"]["mean"] < 40
    assert CONFIDENCE == 0.95
    # A second evaluation gives the same numbers.
    assert evaluate(*words, "--points", 1500, "--limit", 1, "--out", tmp_path / "again") == 0
    rows, again = (pq.read_table(tmp_path / n / "objects.parquet") for n in ("out", "again"))
    assert again.drop(["seconds"]).to_pylist() == rows.drop(["seconds"]).to_pylist()[:1]
    assert "95 %" in capsys.readouterr().out


def test_pixel2mesh_reports_categories_and_needs_geometry(
    one_child, sphere_dataset, mesh_file, tmp_path, capsys
):
    root, plain = sphere_dataset
    ids = [sample.asset_id for sample in open_snapshot(root, plain).samples]
    snapshot = with_geometry(root, plain, ids[:2], ("mug", "cup"))
    meshes, out = tmp_path / "meshes", tmp_path / "out"
    meshes.mkdir()
    for name in ids[:3]:
        write_sphere(meshes / f"{sample_key(name)}.glb", radius=0.8, subdivisions=2)
    words = ["--root", root.uri, "--split", "all", "--protocol", "pixel2mesh", "--points", 2000]
    files = ["--meshes", meshes, "--out", out]
    assert evaluate(*words, "--snapshot", plain, *files) == 2
    assert "has no geometry; add it with `lrm build --geometry`" in capsys.readouterr().err
    assert not out.exists()
    assert evaluate(*words, "--snapshot", snapshot, *files) == 1
    answer = capsys.readouterr()
    assert "mean of the categories" in answer.out
    assert "the dataset has no geometry of it; `lrm build --geometry` adds it" in answer.err
    report = summary(out)
    assert list(report["failed"]) == [object_name(ids[2])]
    assert list(report["categories"]) == ["cup", "mug"]
    mean = report["metrics"]["chamfer_squared"]["mean"]
    assert report["category_mean"]["chamfer_squared"] == pytest.approx(mean)
    assert 0 < mean < 0.5  # two samplings of the same sphere, in the same place
    # The shape of a model, whose pictures are not scored.
    model = ["--mesh", mesh_file, *small_lrm.options(small_lrm.MESH), "--limit", 1, "--json"]
    assert evaluate(*words, "--snapshot", snapshot, *model, "--out", out) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert set(metrics) == {"chamfer_squared", "f_score_1e-4", "f_score_2e-4", "seconds"}
    assert evaluate(*words, "--snapshot", snapshot, "--pipeline", "x", "--out", out) == 2
    assert "--pipeline alone predicts none" in capsys.readouterr().err


def test_input_views_may_come_from_zero123plus(sphere_dataset, mesh_file, tmp_path):
    from train.models.zero123plus.tiny import tiny_pipeline

    tiny_pipeline(0).save_pretrained(tmp_path / "pipeline")
    root, snapshot = sphere_dataset
    words = ["--root", root.uri, "--snapshot", snapshot, "--split", "all", "--no-lpips"]
    words += ["--mesh", mesh_file, *small_lrm.options(small_lrm.MESH)]
    words += ["--pipeline", tmp_path / "pipeline", "--steps", 2, "--view-size", 32]
    assert evaluate(*words, "--limit", 1, "--out", tmp_path / "out") == 0
    assert summary(tmp_path / "out")["metrics"]["psnr"]["objects"] == 1
    # Another guidance gives other views, so no stored row is reused.
    rows = (tmp_path / "out" / "rows.jsonl").read_text().splitlines()
    assert evaluate(*words, "--limit", 1, "--guidance", 1, "--out", tmp_path / "out") == 0
    assert len((tmp_path / "out" / "rows.jsonl").read_text().splitlines()) == len(rows) + 1


def test_a_fine_tune_is_evaluated_by_its_views_alone(mesh_file, tmp_path, capsys):
    from train.models.zero123plus.tiny import tiny_pipeline

    tiny_pipeline(0).save_pretrained(tmp_path / "pipeline")
    root, snapshot = write_sphere_dataset(
        tmp_path / "data", ["train"] * 2, rig="zero123plus", size=32
    )
    words = ["--root", root.uri, "--snapshot", snapshot, "--split", "all", "--no-lpips"]
    words += ["--pipeline", tmp_path / "pipeline", "--steps", 2, "--view-size", 32]
    assert evaluate(*words, "--out", tmp_path / "alone") == 0
    alone = summary(tmp_path / "alone")["metrics"]
    assert set(alone) == {*VIEW_METRICS, "seconds"} - {"views_lpips"}
    # With random weights, the background is not white and no metric is perfect.
    assert 0.1 < alone["background_deviation"]["mean"] < 1
    assert alone["background_deviation"]["mean"] < alone["background_deviation_95"]["mean"]
    assert alone["views_psnr"]["objects"] == 2
    assert "background deviation" in capsys.readouterr().out
    # A mesh model on top of the same views does not change these numbers.
    model = ["--mesh", mesh_file, *small_lrm.options(small_lrm.MESH)]
    assert evaluate(*words, *model, "--out", tmp_path / "both") == 0
    both = summary(tmp_path / "both")["metrics"]
    assert {name: both[name] for name in VIEW_METRICS if name in both} == {
        name: alone[name] for name in VIEW_METRICS if name in alone
    }
    assert "psnr" in both
    # A dataset of another rig has no targets for these views.
    root, snapshot = write_sphere_dataset(tmp_path / "other", ["train"], rig="one2345", size=32)
    words[1], words[3] = root.uri, snapshot
    assert evaluate(*words, "--out", tmp_path / "other-out") == 1
    assert "lrm build --rig zero123plus" in capsys.readouterr().err


def test_conflicting_options_are_refused(truth, sphere_dataset, tmp_path, capsys):
    root, snapshot = sphere_dataset
    dataset = ["--root", root.uri, "--snapshot", snapshot]
    empty = tmp_path / "empty"
    empty.mkdir()
    other = tmp_path / "other"
    other.mkdir()
    write_sphere(other / "stranger.glb")
    cases = [
        (["--self-check"], "give the ground truth"),
        ([*dataset, "--truth", truth, "--self-check"], "give the ground truth"),
        (["--root", root.uri, "--meshes", truth], "give --root and --snapshot together"),
        (["--truth", truth], "give one thing to evaluate"),
        (["--truth", truth, "--self-check", "--meshes", truth], "give one thing to evaluate"),
        ([*dataset, "--self-check"], "--self-check evaluates the files of --truth"),
        (["--truth", truth, "--self-check", "--pipeline", "x"], "give one thing to evaluate"),
        (["--truth", truth, "--self-check", "--points", "0"], "--points must be above 0"),
        (
            ["--truth", truth, "--self-check", "--protocol", "pixel2mesh", "--threshold", "0.2"],
            "--threshold belongs to --protocol instantmesh",
        ),
        (["--truth", truth, "--self-check", "--limit", "0"], "--limit must be above 0"),
        (["--truth", truth, "--self-check", "--rig", "orbit2"], "orbit21"),
        (["--truth", empty, "--self-check"], "holds no mesh (.glb"),
        (["--truth", truth / "gone", "--self-check"], "no such folder"),
        (["--truth", truth, "--meshes", other], "no mesh has the name of an object"),
        ([*dataset, "--mesh", truth], "has no samples in --split validation"),
        ([*dataset, "--mesh", truth / "gone"], "no such checkpoint"),
    ]
    for words, cause in cases:
        assert evaluate(*words, "--no-lpips", "--out", tmp_path / "out") == 2, cause
        assert cause in capsys.readouterr().err
    words = ["--truth", truth, "--self-check", "--lpips-vgg", tmp_path / "vgg.pth"]
    assert evaluate(*words, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "--lpips-vgg is deprecated; use --lpips.vgg" in error
    assert "vgg.pth is missing" in error
    assert "--no-lpips" in error
    assert not (tmp_path / "out").exists()
