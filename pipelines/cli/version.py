"""The version of this software, installed or in a checkout."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["project_version"]

_PACKAGE = "lrm-objaverse"


def project_version() -> str:
    """Return the installed version; in a checkout that is not installed, pyproject.toml's."""
    try:
        return version(_PACKAGE)
    except PackageNotFoundError:
        path = Path(__file__).parents[2] / "pyproject.toml"
        if not path.exists():
            return "unknown"
        return f"{tomllib.loads(path.read_text())['project']['version']} (not installed)"
