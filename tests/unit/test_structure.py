"""The structure of the repository: small folders, and one meaning per file name."""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import REPOSITORY
from tests.support.sources import imports, sources

PACKAGES = ("core", "glb", "dataset", "filters", "render", "train", "pipelines", "benchmarks")
ONE_FILE_PER_ITEM = {
    "pipelines/building/stages",
    "pipelines/cli/commands",
    "train/recipes",
    "train/inference",
}
"""Folders with a file per item. They may be large, and their file names may occur elsewhere
(the recipe `nerf` trains the model in `nerf.py`)."""
MAX_MODULES = 16
COMMON = {"__init__.py", "__main__.py", "registry.py"}


def modules() -> list[Path]:
    return [
        path.relative_to(REPOSITORY)
        for package in PACKAGES
        for path in sorted((REPOSITORY / package).rglob("*.py"))
    ]


def test_no_folder_has_too_many_modules():
    counts = Counter(str(path.parent) for path in modules() if path.name not in COMMON)
    large = {folder for folder, count in counts.items() if count > MAX_MODULES}
    assert large <= ONE_FILE_PER_ITEM


def test_a_file_name_has_one_meaning():
    """Benchmarks are items of a registry, too: `benchmarks/speed/render.py` measures rendering."""
    paths_by_name = defaultdict(list)
    for path in modules():
        item = str(path.parent) in ONE_FILE_PER_ITEM or path.parts[0] == "benchmarks"
        if path.name not in COMMON and not item:
            paths_by_name[path.name].append(str(path))
    assert {name: paths for name, paths in paths_by_name.items() if len(paths) > 1} == {}


def test_every_folder_of_modules_is_a_package():
    folders = {path.parent for path in modules()}
    assert {
        str(folder) for folder in folders if not (REPOSITORY / folder / "__init__.py").exists()
    } == set()


def test_tests_import_only_the_shared_code_of_the_tests():
    """They import no benchmark except the registry, unless a benchmark is their subject."""
    wrong = set()
    for path, tree in sources(("tests",)):
        about_benchmarks = Path(path).parent.name == "benchmarks"
        for name in imports(tree):
            package, *rest = name.split(".")
            if package == "tests" and rest and rest[0] != "support":
                wrong.add(f"{path}: {name}")
            allowed = about_benchmarks or name.startswith("benchmarks.registry")
            if package == "benchmarks" and not allowed:
                wrong.add(f"{path}: {name}")
    assert wrong == set()


RENAMES = {"link", "move", "rename", "renames", "replace"}
"""Functions of os and shutil, and methods of paths, that give a file its final name."""
RENAMED_ELSEWHERE = {
    "pipelines/building/stages/worker_context.py": "a file gets the name of its content",
}


def renames(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that rename a file: `os.rename(a, b)` and its kin, `path.replace(target)`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name("os" | "shutil"), attr=name)):
                if name in RENAMES:
                    yield node.lineno
            # str.replace takes two values, dataclasses.replace and datetime.replace keywords.
            case ast.Call(func=ast.Attribute(attr="rename" | "replace"), args=[_], keywords=[]):
                yield node.lineno


def test_temporary_files_are_renamed_in_one_module():
    """`core/atomic.py` names temporary files, flushes them and removes leftovers."""
    renaming = {path for path, tree in sources(PACKAGES) if any(renames(tree))}
    assert renaming == {"core/atomic.py", *RENAMED_ELSEWHERE}
