"""A stranger finds the place of a thing by its name: small folders, one meaning per file name."""

import ast
from collections import Counter, defaultdict
from pathlib import Path

from tests.support.paths import REPOSITORY

PACKAGES = ("core", "dataset", "filters", "render", "train", "pipelines", "benchmarks")
ONE_FILE_PER_ITEM = {"pipelines/cli/commands", "train/recipes", "train/inference"}
"""Folders with a file per item (commands, recipes, steps of inference): they may be large, and a
name may be that of the subject elsewhere (the recipe `nerf` trains the model in `nerf.py`)."""
MOST_MODULES = 16
COMMON = {"__init__.py", "__main__.py", "registry.py"}


def modules() -> list[Path]:
    return [
        path.relative_to(REPOSITORY)
        for package in PACKAGES
        for path in sorted((REPOSITORY / package).rglob("*.py"))
    ]


def test_no_folder_has_too_many_modules():
    counts = Counter(str(path.parent) for path in modules() if path.name not in COMMON)
    large = {folder for folder, count in counts.items() if count > MOST_MODULES}
    assert large <= ONE_FILE_PER_ITEM


def test_a_file_name_has_one_meaning():
    """Benchmarks are items of a registry, too: `benchmarks/speed/render.py` measures rendering."""
    places = defaultdict(list)
    for path in modules():
        item = str(path.parent) in ONE_FILE_PER_ITEM or path.parts[0] == "benchmarks"
        if path.name not in COMMON and not item:
            places[path.name].append(str(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_every_folder_of_modules_is_a_package():
    folders = {path.parent for path in modules()}
    assert {
        str(folder) for folder in folders if not (REPOSITORY / folder / "__init__.py").exists()
    } == set()


def imported(path: Path) -> set[str]:
    """The modules that a file of tests imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_tests_import_of_the_tests_only_what_they_share():
    """Nor do they import benchmarks, but for the list of names, unless one is their subject."""
    wrong = set()
    for path in sorted((REPOSITORY / "tests").rglob("*.py")):
        for name in imported(path):
            package, *rest = name.split(".")
            if package == "tests" and rest and rest[0] != "support":
                wrong.add(f"{path.relative_to(REPOSITORY)}: {name}")
            allowed = path.parent.name == "benchmarks" or name.startswith("benchmarks.registry")
            if package == "benchmarks" and not allowed:
                wrong.add(f"{path.relative_to(REPOSITORY)}: {name}")
    assert wrong == set()
