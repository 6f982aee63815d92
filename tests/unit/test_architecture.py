"""Import rules that ruff and import-linter do not check, and unique names of packages."""

import importlib.metadata
import subprocess
import sys
import tomllib

import pytest
from setuptools import find_packages

from tests.support.paths import REPOSITORY
from tests.support.sources import PACKAGES, imports, sources


def test_deepspeed_is_used_by_the_engine_alone():
    """Its accelerator must be chosen before its import; import-linter has no such rule."""
    users = {
        path
        for path, tree in sources()
        if any(n.split(".")[0] == "deepspeed" for n in imports(tree))
    }
    assert users == {"train/loop/deepspeed_engine.py"}


def test_contracts_that_list_the_files_of_render_list_them_all():
    """A new file in render/ must fall under the contracts that list files by name."""
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]
    by_name = {contract["name"]: contract for contract in contracts["contracts"]}
    modules = [*(REPOSITORY / "render").glob("[a-z]*.py")]
    modules += [path.parent for path in (REPOSITORY / "render").glob("*/__init__.py")]
    files = {f"render.{path.stem}" for path in modules} - {"render.blender"}
    outside = set(by_name["bpy only in render.blender"]["source_modules"])
    child = by_name[
        "The Blender child imports of the project only render.job, glb and two files of core"
    ]
    assert files <= outside
    assert files - {"render.job"} <= set(child["forbidden_modules"])


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (("glb/",), {"core", "glb", "jaxtyping", "numpy", "opengl_basisu", "pyarrow"}),
        (
            ("render/blender/", "render/job.py"),
            {"core", "glb", "render", "jaxtyping", "numpy", "bpy", "mathutils"},
        ),
    ],
    ids=["parser", "Blender child"],
)
def test_the_parser_and_the_blender_child_need_few_third_parties(
    paths: tuple[str, ...], expected: set[str]
):
    """Import-linter checks only the packages that a contract names."""
    packages = {
        name.split(".")[0]
        for path, tree in sources()
        if path.startswith(paths)
        for name in imports(tree)
    }
    assert packages - sys.stdlib_module_names == expected


def test_the_parser_starts_without_the_libraries_of_its_decoders():
    """They are imported inside functions, when an image needs them."""
    code = "import glb.parse, glb.decoders.images, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    ).stdout.split()
    assert "glb.decoders.ktx2" in loaded
    assert not {"opengl_basisu", "pyarrow"} & set(loaded)


def test_the_failure_kinds_need_the_standard_library_only():
    """The parser and the Blender child import them, and thereby everything that they import."""
    (tree,) = (tree for path, tree in sources() if path == "core/failures.py")
    assert {name.split(".")[0] for name in imports(tree)} == {"enum"}


def test_no_other_distribution_claims_our_names():
    owners = importlib.metadata.packages_distributions()
    for package in PACKAGES:
        others = set(owners.get(package, [])) - {"lrm-objaverse"}
        assert others == set(), f"{package} is also installed by {others}"


def test_every_package_is_installed():
    tools = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]
    patterns = tools["setuptools"]["packages"]["find"]["include"]
    packages = {
        str(path.parent.relative_to(REPOSITORY)).replace("/", ".")
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("__init__.py")
    }
    assert set(find_packages(str(REPOSITORY), include=patterns)) == packages
