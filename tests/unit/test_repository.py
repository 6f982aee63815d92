"""The files around the code say what the code does."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from render.system_libraries import _PACKAGE_OF_LIBRARY
from tests.support.paths import REPOSITORY
from tests.support.sources import PACKAGES, imports, sources

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
TARGETS = set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
ALL_PACKAGES = (*PACKAGES, "benchmarks", "tests")
OPTIONAL = {"lpips", "nvdiffrast", "rembg"}
"""Imported where they are installed. The Makefile installs lpips, without its torchvision."""
BROUGHT = {"botocore": "s3fs", "mathutils": "bpy"}
"""Modules of packages that a declared one requires or contains."""
WORKFLOW = REPOSITORY / ".github" / "workflows" / "test.yml"


def test_the_licence_is_the_one_of_the_package():
    assert PROJECT["license"] == "Apache-2.0"
    assert PROJECT["license-files"] == ["LICENSE"]
    assert "Apache License" in (REPOSITORY / "LICENSE").read_text()
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert (citation["license"], citation["version"]) == ("Apache-2.0", PROJECT["version"])


def test_the_workflow_runs_the_commands_of_the_makefile():
    job = yaml.safe_load(WORKFLOW.read_text())["jobs"]["test"]
    commands = [" ".join(step.get("run", "").split()) for step in job["steps"]]
    targets = re.findall(r'"([\w-]+)"', job["strategy"]["matrix"]["target"])
    assert set(targets) == {"test", "test-slow"} <= TARGETS
    assert "make ${{ matrix.target }}" in commands
    called = {word for command in commands for word in re.findall(r"^make ([\w-]+)", command)}
    assert called <= TARGETS
    (packages,) = (command for command in commands if "apt-get install" in command)
    assert set(_PACKAGE_OF_LIBRARY.values()) <= set(packages.split())


def test_hooks_run_the_checks_of_make_test():
    configuration = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())
    entries = [hook["entry"] for repo in configuration["repos"] for hook in repo["hooks"]]
    assert entries == ["make lint", "make types", "make layers"]
    assert {entry.removeprefix("make ") for entry in entries} <= TARGETS


def imported() -> set[str]:
    """The packages of others that any file imports."""
    names = (name for _, tree in sources(ALL_PACKAGES) for name in imports(tree))
    found = {name.split(".")[0] for name in names}
    return found - set(sys.stdlib_module_names) - set(ALL_PACKAGES)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=; ]", name)[0]).lower()


def test_every_import_is_declared():
    declared = {normal(name) for name in PROJECT["dependencies"]}
    for extra in PROJECT["optional-dependencies"].values():
        declared |= {normal(name) for name in extra}
    owners = importlib.metadata.packages_distributions()
    missing = {
        name
        for name in imported() - OPTIONAL - set(BROUGHT)
        if not declared & {normal(owner) for owner in [*owners.get(name, []), name]}
    }
    assert missing == set()
    assert {normal(name) for name in BROUGHT.values()} <= declared


def test_no_name_is_undefined():
    """Ruff's F821 is off because of the shapes in annotations, which are strings."""
    words = ["check", "--isolated", "--target-version", "py311", "--select", "F821"]
    ruff = [sys.executable, "-m", "ruff", *words, "--output-format", "json", *ALL_PACKAGES]
    found = json.loads(subprocess.run(ruff, cwd=REPOSITORY, capture_output=True, text=True).stdout)
    lines = {
        name: Path(name).read_text().splitlines() for name in {item["filename"] for item in found}
    }
    undefined = []
    for item in found:
        row, column = item["location"]["row"], item["location"]["column"]
        # A shape such as "n" or " n": a small letter behind a quotation mark.
        before = lines[item["filename"]][row - 1][: column - 1].rstrip()
        is_shape = before.endswith('"') and re.fullmatch("Undefined name `[a-z]`", item["message"])
        if item["code"] == "F821" and not is_shape:
            undefined.append(f"{item['filename']}:{row}: {item['message']}")
    assert undefined == []
