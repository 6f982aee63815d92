"""The project's own source files."""

import ast
from collections.abc import Iterator

from tests.support.paths import REPOSITORY

PACKAGES = ("dataset", "filters", "render", "train", "pipelines")


def sources() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            yield str(path.relative_to(REPOSITORY)), ast.parse(path.read_text())


def imports(tree: ast.AST) -> Iterator[str]:
    """Every imported module, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
