"""Versions that a result may depend on."""

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["PACKAGES", "installed_versions"]

PACKAGES = ("torch", "deepspeed", "numpy", "lrm-objaverse")


def installed_versions() -> dict[str, str]:
    """Of Python and the packages."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
