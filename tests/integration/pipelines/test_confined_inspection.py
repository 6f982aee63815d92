"""A build inspects files in a confined process: a bomb fails by its kind, and holds nothing."""

from pathlib import Path

from tests.support.lrm import run_lrm
from tests.support.picture_bombs import jpeg_of_many_scans
from tests.support.small_glbs import pack_glb, textured_square


def test_a_picture_of_many_scans_fails_by_the_time_limit(tmp_path: Path):
    models, root = tmp_path / "models", tmp_path / "root"
    models.mkdir()
    image = jpeg_of_many_scans(8192, 200_000)
    (models / "bomb.glb").write_bytes(pack_glb(*textured_square(image)))
    (models / "text.glb").write_text("no GLB")
    words = (
        "--root",
        root,
        "--source",
        models,
        "--address",
        "none",
        "--no-filters.caption.enabled",
    )
    status = run_lrm("build", *words, "--blender.import-seconds", "1", "--json").json()
    assert status["failed"] == {"timeout": 1, "malformed": 1}
    found = run_lrm("inspect", "--root", root, "folder:bomb", "--json").json()
    assert (found["failed"]["stage"], found["failed"]["kind"]) == ("inspect", "timeout")
    assert found["failed"]["message"] == "inspect took more than 1 s"
    # Another limit is a reason to try again, as for the Blender child.
    plan = run_lrm("plan", *words, "--blender.import-seconds", "2", "--json").json()
    same = run_lrm("plan", *words, "--blender.import-seconds", "1", "--json").json()
    assert (set(plan["work"]), set(same["work"])) == ({"inspect"}, set())
