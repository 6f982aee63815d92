"""Licence, workflow, hooks and declared dependencies agree with the code."""

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
"""Packages that are imported only if they are installed. The Makefile installs lpips without
torchvision."""
TRANSITIVE = {
    "aiobotocore": "s3fs",
    "aiohttp": "s3fs",
    "botocore": "s3fs",
    "mathutils": "bpy",
    "typing_extensions": "pydantic",
}
"""Modules that are part of a declared package or of one that it requires."""
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
    make_targets = {word for command in commands for word in re.findall(r"^make ([\w-]+)", command)}
    assert make_targets <= TARGETS
    (packages,) = (command for command in commands if "apt-get install" in command)
    assert set(_PACKAGE_OF_LIBRARY.values()) <= set(packages.split())


def test_hooks_run_the_checks_of_make_test():
    configuration = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())
    entries = [hook["entry"] for repo in configuration["repos"] for hook in repo["hooks"]]
    assert entries == ["make lint", "make types", "make layers"]
    assert {entry.removeprefix("make ") for entry in entries} <= TARGETS


def third_party_imports() -> set[str]:
    """Return the third-party packages that any file imports."""
    names = (name for _, tree in sources(ALL_PACKAGES) for name in imports(tree))
    packages = {name.split(".")[0] for name in names}
    return packages - set(sys.stdlib_module_names) - set(ALL_PACKAGES)


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=; ]", name)[0]).lower()


def test_every_import_is_declared():
    declared = {normalised(name) for name in PROJECT["dependencies"]}
    for extra in PROJECT["optional-dependencies"].values():
        declared |= {normalised(name) for name in extra}
    owners = importlib.metadata.packages_distributions()
    missing = {
        name
        for name in third_party_imports() - OPTIONAL - set(TRANSITIVE)
        if not declared & {normalised(owner) for owner in [*owners.get(name, []), name]}
    }
    assert missing == set()
    assert {normalised(name) for name in TRANSITIVE.values()} <= declared


def test_no_name_is_undefined():
    """Ruff's F821 is off because it takes the shapes in annotations for names."""
    words = ["check", "--isolated", "--target-version", "py311", "--select", "F821"]
    ruff = [sys.executable, "-m", "ruff", *words, "--output-format", "json", *ALL_PACKAGES]
    problems = json.loads(
        subprocess.run(ruff, cwd=REPOSITORY, capture_output=True, text=True).stdout
    )
    lines = {
        name: Path(name).read_text().splitlines()
        for name in {item["filename"] for item in problems}
    }
    undefined = []
    for item in problems:
        row, column = item["location"]["row"], item["location"]["column"]
        # A shape such as "n" or " n" is a lower-case letter after a quotation mark.
        before = lines[item["filename"]][row - 1][: column - 1].rstrip()
        is_shape = before.endswith('"') and re.fullmatch("Undefined name `[a-z]`", item["message"])
        if item["code"] == "F821" and not is_shape:
            undefined.append(f"{item['filename']}:{row}: {item['message']}")
    assert undefined == []
