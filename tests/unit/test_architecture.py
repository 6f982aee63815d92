"""The house: who may import whom, and names that nobody else claims."""

import ast
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY
from tests.support.sources import PACKAGES, imports, sources

ALLOWED = {
    "bpy": ("render/blender/",),
    "mathutils": ("render/blender/",),
    "ray": ("pipelines/",),
    "deepspeed": ("train/loop/engine.py",),
}


@pytest.mark.parametrize("library", ALLOWED)
def test_a_heavy_library_stays_in_its_room(library):
    users = {
        path for path, tree in sources() if any(n.split(".")[0] == library for n in imports(tree))
    }
    assert users
    assert {path for path in users if not path.startswith(ALLOWED[library])} == set()


def test_layers_hold():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stdout


def test_every_import_linter_contract_knows_every_room():
    """A new file in render/ must fall under the contracts that list files by name."""
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]
    by_name = {contract["name"]: contract for contract in contracts["contracts"]}
    files = {f"render.{path.stem}" for path in (REPOSITORY / "render").glob("[a-z]*.py")}
    outside = set(by_name["bpy only in render.blender"]["source_modules"])
    island = by_name["Blender's island imports nothing of the project but render.job"]
    assert files <= outside
    assert files - {"render.job"} <= set(island["forbidden_modules"])


def test_no_other_distribution_claims_our_names():
    owners = importlib.metadata.packages_distributions()
    for package in PACKAGES:
        others = set(owners.get(package, [])) - {"lrm-objaverse"}
        assert others == set(), f"{package} is also installed by {others}"


def test_every_package_is_listed_for_installation():
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        str(path.parent.relative_to(REPOSITORY)).replace("/", ".")
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("__init__.py")
    }
    assert set(listed["packages"]) == found


def test_no_bare_except_no_global_no_star_import():
    for path, tree in sources():
        for node in ast.walk(tree):
            assert not isinstance(node, ast.Global), path
            assert not (isinstance(node, ast.ExceptHandler) and node.type is None), path
            if isinstance(node, ast.ImportFrom):
                assert all(alias.name != "*" for alias in node.names), path


def test_importing_the_command_line_loads_nothing_heavy():
    code = "import sys, pipelines.cli; print(sorted({'ray', 'torch', 'bpy'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.stdout.strip() == "[]", done.stderr
