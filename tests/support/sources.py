"""The project's own source files."""

import ast
import functools
from collections.abc import Iterator

from tests.support.paths import REPOSITORY

PACKAGES = ("core", "dataset", "filters", "render", "train", "pipelines")


@functools.cache
def sources() -> tuple[tuple[str, ast.Module], ...]:
    """Every source file with its syntax tree, parsed once."""
    paths = [path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*.py"))]
    return tuple((str(path.relative_to(REPOSITORY)), ast.parse(path.read_text())) for path in paths)


def imports(tree: ast.AST) -> Iterator[str]:
    """Every imported module, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
