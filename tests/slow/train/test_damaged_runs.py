"""A run is resumed, shown and exported after every damage: entry of its folder x damage."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.damages import DAMAGES, copy_folder, damages_of
from tests.support.local_training import run_local_training
from tests.support.lrm import Answer, run_lrm
from tests.support.metrics import losses
from tests.support.run_damage import bad_end, cells, run_entries
from tests.support.train_arguments import nerf_arguments


@pytest.fixture(scope="module")
def run(sphere_dataset, tmp_path_factory) -> Path:
    """Return the folder of a run of four steps with two checkpoints."""
    out = tmp_path_factory.mktemp("run") / "whole"
    words = ["--preview-every", "2", "--keep-checkpoints", "2"]
    answer = run_local_training(*nerf_arguments(sphere_dataset, out, 4, *words))
    assert answer.code == 0, answer.err
    return out


@pytest.fixture(scope="module")
def resume(sphere_dataset) -> Callable[[Path], Answer]:
    """Return a function that continues a run to step 5."""
    return lambda out: run_local_training(*nerf_arguments(sphere_dataset, out, 5))


def test_a_damaged_run_resumes_with_the_same_losses_or_not_at_all(run, resume, tmp_path):
    whole = copy_folder(run, tmp_path / "whole")
    assert resume(whole).code == 0
    expected = losses(whole)
    problems = []
    for number, name, kind in cells(run):
        out = copy_folder(run, tmp_path / f"{number} {name.replace('/', ' ')} {kind}")
        DAMAGES[kind](out / name)
        answer = resume(out)
        problem = bad_end(answer, out)
        if answer.code == 0 and not problem:
            actual = losses(out)
            # Lines of a damaged log are gone; those that are left, and the new ones, are right.
            if not set(actual) <= set(expected) or actual[-1] != expected[-1]:
                problem = f"other losses: {actual}"
            if "started at step 1" in answer.out:
                problem = "began anew"
        if problem:
            problems.append(f"{name} {kind}: {problem}")
        shutil.rmtree(out)
    assert not problems, "\n".join(problems)


def test_a_run_whose_only_checkpoint_is_damaged_is_refused(run, resume, tmp_path):
    newest = "checkpoints/step-00000004"
    names = [name for name in run_entries(run) if name.startswith(newest)] + ["checkpoints"]
    problems = []
    for name in names:
        for kind in damages_of(run / name):
            if kind == "deleted" and name.endswith(("manifest.json", newest)):
                continue  # as a save that was killed: the run begins anew with a warning
            out = copy_folder(run, tmp_path / f"{name.replace('/', ' ')} {kind}")
            shutil.rmtree(out / "checkpoints/step-00000002")
            DAMAGES[kind](out / name)
            before = (out / "metrics.jsonl").read_bytes()
            answer = resume(out)
            problem = bad_end(answer, out)
            if answer.code == 0 and "begins at step 1" not in answer.err:
                problem = "began anew without a warning"
            if answer.code and (out / "metrics.jsonl").read_bytes() != before:
                problem = "the log has changed"
            if problem:
                problems.append(f"{name} {kind}: {problem}")
            shutil.rmtree(out)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_run_is_shown_or_its_file_is_named(run, kind, tmp_path):
    problems = []
    for name in run_entries(run):
        out = copy_folder(run, tmp_path / name.replace("/", " "))
        DAMAGES[kind](out / name)
        for words in (
            ("train", "--status", out),
            ("train", "--status", out, "--verify"),
            ("weights", "--run", out, "--out", tmp_path / "weights.safetensors"),
        ):
            problem = bad_end(run_lrm(*words), out)
            if problem:
                problems.append(f"{' '.join(map(str, words))}: {name}: {problem}")
        shutil.rmtree(out)
    assert not problems, "\n".join(problems)
