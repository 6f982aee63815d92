"""The version of this software, installed or in a checkout."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["project_version"]

_PACKAGE = "lrm-objaverse"


def project_version() -> str:
    """Return the version of the checkout that this file is in, else that of the installation."""
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    if pyproject.exists():
        return str(tomllib.loads(pyproject.read_text())["project"]["version"])
    try:
        return version(_PACKAGE)
    except PackageNotFoundError:
        return "unknown"
