"""The check of the system libraries that bpy needs. Uses the standard library only."""

import ctypes
import os
import sys

__all__ = ["apt_command", "main", "missing_packages"]

_PACKAGE_OF_LIBRARY = {
    "libXrender.so.1": "libxrender1",
    "libSM.so.6": "libsm6",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libXi.so.6": "libxi6",
    "libXxf86vm.so.1": "libxxf86vm1",
    "libXfixes.so.3": "libxfixes3",
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
}
"""Package names in Debian 12, Ubuntu 22.04 and later."""


def missing_packages() -> list[str]:
    """Return the Debian packages whose libraries cannot be loaded on this machine."""
    missing = []
    for library, package in _PACKAGE_OF_LIBRARY.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(package)
    return missing


def apt_command(packages: list[str]) -> str:
    """Return the shell command that installs the packages, with sudo unless run as root."""
    sudo = "" if os.geteuid() == 0 else "sudo "
    names = " ".join(packages)
    return f"{sudo}apt-get update && {sudo}apt-get install -y --no-install-recommends {names}"


def main() -> int:
    """Print the missing packages and how to install them; return 1 if any is missing."""
    missing = missing_packages()
    if missing:
        print(
            f"Blender needs system libraries that are missing here. Install them with:\n"
            f"  {apt_command(missing)}",
            file=sys.stderr,
        )
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
