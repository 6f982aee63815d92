"""Versions of Python and packages that a result may depend on."""

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["PACKAGES", "installed_versions"]

PACKAGES = ("torch", "deepspeed", "numpy", "lrm-objaverse")


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of `PACKAGES`, by name."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions
