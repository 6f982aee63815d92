"""The fuzz run: reproducible cases, named outcomes, and reported violations."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from benchmarks.fuzz.fuzz import fuzz, main
from benchmarks.fuzz.fuzz_case import Plan
from tests.support.analytic_shapes import letter_block, write_boxes
from tests.support.small_glbs import pack_glb, picture, textured_square


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder of three small models."""
    folder = tmp_path_factory.mktemp("models")
    write_boxes(folder / "block.glb", letter_block())
    for kind in ("PNG", "JPEG"):
        glb = pack_glb(*textured_square(picture(kind, (64, 64))))
        (folder / f"{kind}.glb").write_bytes(glb)
    return folder


def raise_key_error(glb: Path) -> None:
    raise KeyError("the bufferView")


def pass_everything(glb: Path) -> None:
    pass


def hang(glb: Path) -> None:
    time.sleep(600)


def die(glb: Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def litter(glb: Path) -> None:
    glb.with_name("rest.bin").write_bytes(b"")
    subprocess.Popen(["sleep", "600"])


def test_a_case_follows_from_its_seed_and_number(models: Path) -> None:
    paths = sorted(models.iterdir())
    cases = [Plan(paths).make(number) for number in range(200)]
    assert [Plan(paths).make(number) for number in range(200)] == cases
    assert len({data for data, _ in cases}) > 190
    originals = {path.read_bytes() for path in paths}
    assert sum(data in originals for data, _ in cases) < 10
    assert Plan(paths, seed=1).make(0) != cases[0]


def test_every_mutation_is_used(models: Path) -> None:
    plan = Plan(sorted(models.iterdir()))
    steps = [step for number in range(600) for step in plan.make(number)[1][1:]]
    assert len({step.split(":")[0] for step in steps}) == 23


def test_inspect_names_every_outcome(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--source", str(models), "--cases", "300", "--targets", "inspect"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("300 cases of 3 models, seed 0")
    for kind in ("| malformed |", "| ok |", "| external_reference |", "violations: 0"):
        assert kind in printed


def blender_children() -> set[int]:
    """Return the process ids of Blender children of this process and its children."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended
            if "render.blender.worker" in child.cmdline():
                found.add(child.pid)
    return found


def test_blender_names_every_outcome(models: Path) -> None:
    before = blender_children()  # that of other tests, which lasts for the session
    outcomes = list(fuzz(Plan(sorted(models.iterdir())), iter(range(8))))
    assert [outcome.number for outcome in outcomes] == list(range(8))
    assert not [outcome.violations for outcome in outcomes if outcome.violations]
    kinds = {outcome.kinds["blender"] for outcome in outcomes}
    assert "ok" in kinds and len(kinds) > 1
    assert max(outcome.memory for outcome in outcomes) > 100 << 20
    assert blender_children() <= before


def test_a_file_that_only_the_parser_of_the_child_refuses_is_a_violation(models: Path) -> None:
    plan = Plan(sorted(models.iterdir()), inspect=pass_everything)
    outcomes = list(fuzz(plan, iter(range(8))))
    parser = {"malformed", "external_reference", "unsupported_extension"}
    refused = {outcome.number for outcome in outcomes if outcome.kinds["blender"] in parser}
    assert refused
    assert refused == {
        outcome.number
        for outcome in outcomes
        if any("parser refuses" in text for text in outcome.violations)
    }


@pytest.mark.parametrize(
    ("inspection", "cases", "messages"),
    [
        (raise_key_error, 2, ["KeyError: 'the bufferView'"]),
        (die, 2, ["exit code -11"]),
        (litter, 2, ["file rest.bin", "which is not the child"]),
        (hang, 1, ["no answer within 3 s"]),
    ],
    ids=["raise_key_error", "die", "litter", "hang"],
)
def test_a_violation_is_printed_and_stored(
    models: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    inspection: Callable[[Path], None],
    cases: int,
    messages: list[str],
) -> None:
    options = ["--source", str(models), "--targets", "inspect", "--cases", str(cases)]
    options += ["--keep", str(tmp_path), "--patience", "3" if inspection is hang else "100"]
    assert main(options, inspection) == 1
    printed = capsys.readouterr().out
    assert [printed.count(text) for text in messages] == [cases] * len(messages)
    assert f"violations: {cases}" in printed
    data, recipe = Plan(sorted(models.iterdir(), key=lambda path: path.stem)).make(0)
    assert (tmp_path / "case-0.glb").read_bytes() == data
    kept = (tmp_path / "case-0.txt").read_text()
    assert all(text in kept for text in [*messages, recipe[0]])
