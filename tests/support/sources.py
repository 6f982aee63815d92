"""The syntax trees of the project's source files, and their imports."""

import ast
import functools
from collections.abc import Iterator

from tests.support.paths import REPOSITORY

PACKAGES = ("core", "glb", "dataset", "filters", "render", "train", "pipelines")


@functools.cache
def sources(packages: tuple[str, ...] = PACKAGES) -> tuple[tuple[str, ast.Module], ...]:
    """Return path and syntax tree of every source file of the packages; files are parsed once."""
    paths = [path for package in packages for path in sorted((REPOSITORY / package).rglob("*.py"))]
    return tuple((str(path.relative_to(REPOSITORY)), ast.parse(path.read_text())) for path in paths)


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield every imported module, also inside functions, and every name imported from one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
