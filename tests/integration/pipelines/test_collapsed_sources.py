"""Sources and captions that collapse: plan, build and compact refuse to lose what was kept."""

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.demo.demo_mirror import CAPTIONS_FILE
from tests.support.datasets import BuiltDataset
from tests.support.lrm import Answer, run_lrm

PATHS = "object-paths.json.gz"
LICENCES = ["--filters.licence.enabled"]


@pytest.fixture
def copied(built_dataset: BuiltDataset, tmp_path: Path) -> BuiltDataset:
    """Return a copy of the dataset and its source, which a test may change.

    The captions are also beside the source.
    """
    copy = BuiltDataset(tmp_path / "root", tmp_path / "source")
    shutil.copytree(built_dataset.root, copy.root)
    shutil.copytree(built_dataset.source, copy.source)
    shutil.copy(copy.source / CAPTIONS_FILE, tmp_path)
    return copy


def run(command: str, dataset: BuiltDataset, *words: str) -> Answer:
    return run_lrm(command, "--root", dataset.root, *dataset.words, *words)


def compact(dataset: BuiltDataset, *words: str) -> Answer:
    return run_lrm("compact", "--root", dataset.root, *words)


def content(folder: Path) -> dict[str, str]:
    """Return a digest of every file below a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(source: Path, pattern: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Replace the JSON of annotation files by what `change` returns."""
    for path in source.glob(pattern):
        values = change(json.loads(gzip.decompress(path.read_bytes())))
        path.write_bytes(gzip.compress(json.dumps(values).encode()))


def annotate(**fields: Any) -> Callable[[Path], None]:
    """Return a function that sets fields of all annotations."""

    def change(annotations: dict[str, Any]) -> dict[str, Any]:
        return {uid: values | fields for uid, values in annotations.items()}

    return lambda source: edit(source, "metadata/*", change)


def edit_captions(change: Callable[[list[str]], list[str]]) -> Callable[[Path], object]:
    """Return a function that replaces the lines of the captions."""

    def write(source: Path) -> None:
        lines = (source / CAPTIONS_FILE).read_text().splitlines(keepends=True)
        (source / CAPTIONS_FILE).write_text("".join(change(lines)))

    return write


def without_models(source: Path) -> None:
    for path in source.glob("glbs/*/*.glb"):
        path.unlink()


def emptied(source: Path) -> None:
    shutil.rmtree(source)
    source.mkdir()


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "paths of one object": (
        lambda source: edit(source, PATHS, lambda paths: dict(list(paths.items())[:1])),
        "not listed any more (objaverse:",
    ),
    "no paths": (lambda source: edit(source, PATHS, lambda _: {}), "not listed any more"),
    "uids in capitals": (
        lambda source: edit(source, PATHS, lambda p: {uid.upper(): p[uid] for uid in p}),
        "not listed any more",
    ),
    "paths cut": (lambda source: cut(source / PATHS), f"{PATHS} is damaged"),
    "paths missing": (lambda source: (source / PATHS).unlink(), f"mirror without {PATHS}"),
    "captions of some": (edit_captions(lambda lines: lines[:2]), "dropped as no_caption"),
    "captions cut in a row": (lambda source: cut(source / CAPTIONS_FILE), "may be truncated"),
    "no captions": (edit_captions(lambda _: []), "has no caption"),
    "captions of another dataset": (
        edit_captions(lambda lines: [f"{n:032x},a chair\n" for n in range(len(lines))]),
        "dropped as no_caption",
    ),
    "captions with other ids": (
        edit_captions(lambda lines: [line[:32].upper() + line[32:] for line in lines]),
        "dropped as no_caption",
    ),
    "tags": (annotate(tags=[{"name": "Low Poly"}]), "dropped as lowpoly_tag"),
    "licences": (annotate(license="by-nc"), "dropped as licence_not_allowed"),
    "annotations that are empty": (
        lambda source: edit(source, "metadata/*", lambda _: {}),
        "dropped as licence_not_allowed",
    ),
    "annotations of another type": (annotate(tags=5), "annotation cannot be used"),
    "annotations cut": (lambda source: cut(next(source.glob("metadata/*"))), "is damaged"),
    "annotations missing": (
        lambda source: next(source.glob("metadata/*")).unlink(),
        "is missing",
    ),
    "models missing": (without_models, "file missing from the source"),
    "an empty folder": (emptied, "neither an Objaverse mirror"),
    "no folder": (shutil.rmtree, "there is no such folder"),
}


@pytest.mark.parametrize("collapse", REFUSED)
def test_a_collapsed_source_is_refused_and_nothing_is_written(copied: BuiltDataset, collapse):
    run_lrm("build", "--root", copied.root, "--filters-only", *LICENCES)
    alter, reason = REFUSED[collapse]
    alter(copied.source)
    before = content(copied.root)
    plan, build = (run(command, copied, *LICENCES) for command in ("plan", "build"))
    assert (plan.code, build.code, build.out) == (2, 2, "")
    assert content(copied.root) == before
    for answer in (plan, build):
        assert "error: " in answer.err.splitlines()[-1]
        assert reason in answer.err.splitlines()[-1]


LISTED = {
    "licences": (annotate(license="by-nc"), "licences change: objaverse:"),
    "annotations that are empty": (
        lambda source: edit(source, "metadata/*", lambda _: {}),
        "licences are unknown now: objaverse:",
    ),
    "a model missing": (
        lambda source: max(source.glob("glbs/*/*.glb")).unlink(),
        "1 file is missing from the source: objaverse:",
    ),
    "lvis categories": (
        lambda source: edit(source, "lvis-annotations.json.gz", lambda _: {}),
        "other annotations change: objaverse:",
    ),
}


@pytest.mark.parametrize("change", LISTED)
def test_what_loses_no_kept_objects_is_listed_and_done(copied: BuiltDataset, change):
    alter, line = LISTED[change]
    alter(copied.source)
    plan = run("plan", copied)
    assert (plan.code, line in plan.out, "nothing to do" in plan.out) == (0, True, False)


def test_build_prints_the_changes_before_it_works_and_accepts_a_loss_on_request(
    copied: BuiltDataset,
):
    kept = run_lrm("status", "--root", copied.root, "--json").json()["kept"]
    REFUSED["captions of some"][0](copied.source)
    plan = run("plan", copied, "--json")
    assert plan.code == 2
    forecast = json.loads(plan.out)
    loss = forecast["loss"]
    assert (loss["kept"], loss["limit"], loss["refused"]) == (kept, 0.05, True)
    assert loss["objects"] == forecast["listing"]["dropped"]["no_caption"]["count"] > 1
    assert loss["share"] == loss["objects"] / kept
    share = loss["message"].rpartition("--accept-loss ")[2]
    assert run("build", copied, "--accept-loss", str(float(share) - 0.02)).code == 2
    answer = run("build", copied, "--accept-loss", share, "--json")
    assert answer.json()["kept"] == kept - loss["objects"]
    # The copy has another place than the source that the dataset remembers.
    notes = [line for line in answer.err.splitlines() if "warning" not in line and "→" not in line]
    assert [line.partition(" ")[2].partition(": objaverse")[0] for line in notes] == [
        f"build: {forecast['listing']['captions_changed']['count']} captions change",
        f"build: {loss['objects']} objects will be dropped (no_caption)",
    ]
    assert run("plan", copied).code == 0


def test_compaction_deletes_what_a_collapse_left_only_if_it_is_told_to(copied: BuiltDataset):
    paths = (copied.source / PATHS).read_bytes()
    REFUSED["captions of some"][0](copied.source)
    assert run("build", copied, "--accept-loss", "1").code == 0
    edit(copied.source, PATHS, lambda paths: dict(list(paths.items())[:8]))
    # The last builds found nothing to lose: the objects were lost before.
    assert [run("build", copied, *words).code for words in (["--accept-loss", "1"], [])] == [0, 0]
    before = content(copied.root)
    dry_run, refused = compact(copied, "--dry-run"), compact(copied)
    assert (dry_run.code, refused.code) == (2, 2)
    assert ("would be deleted" in dry_run.out, refused.out) == (True, "")
    assert dry_run.err == refused.err
    for part in ("not listed any more", "dropped as no_caption", "--accept-loss", "lrm build"):
        assert part in refused.err
    # Files that a lock leaves behind do not count.
    assert content(copied.root).items() >= before.items()
    (copied.source / PATHS).write_bytes(paths)
    shutil.copy(copied.source.parent / CAPTIONS_FILE, copied.source)
    assert run("build", copied).code == 0
    freed = compact(copied, "--json").json()
    assert (freed["deleted"]["files"], freed["loss"]["objects"]) == (0, 0)


def test_compaction_deletes_what_thresholds_and_removals_left(copied: BuiltDataset):
    options = ["--filters-only", "--filters.occupancy.min-share", "0.9"]
    assert run_lrm("build", "--root", copied.root, *options).code == 0
    freed = compact(copied, "--json").json()
    assert freed["deleted"]["files"] > 0
    assert freed["loss"]["refused"] is False


def test_a_wrong_source_is_named_before_the_captions(demo_source: Path, tmp_path: Path):
    captions = demo_source / CAPTIONS_FILE
    for source, problem in [("typo", "no such folder"), ("", "nor a folder of .glb files")]:
        folder = tmp_path / source
        words = ["--source", folder, "--captions", captions, "--root", tmp_path / "root"]
        answer = run_lrm("plan", *words)
        (line,) = answer.err.splitlines()
        assert (answer.code, f"error: {folder}: " in line, problem in line) == (2, True, True)


def test_a_first_build_without_captions_says_what_it_will_drop(demo_source: Path, tmp_path: Path):
    words = ["plan", "--source", demo_source, "--root", tmp_path / "root"]
    plan = run_lrm(*words, "--json")
    assert (plan.json()["work"], plan.json()["loss"]["objects"]) == ({}, 0)
    assert run_lrm(*words).out == "no object needs a stage\n"
    (warning,) = plan.err.splitlines()
    for part in ("all ", "no caption", "--captions FILE", "--no-filters.caption.enabled"):
        assert part in warning


@pytest.mark.parametrize("share", ["-0.1", "1.5", "much"])
def test_a_share_outside_0_to_1_is_refused(built_dataset: BuiltDataset, share):
    answer = run("plan", built_dataset, f"--accept-loss={share}")
    assert (answer.code, "--accept-loss" in answer.err) == (2, True)
