"""What a check found."""

import importlib.metadata
from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "State", "install_line", "reinstall_line"]

State = Literal["ok", "missing", "note"]
"""`missing`: what was asked for does not work; `note`: it works, and not as well as it might."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: State
    found: str
    needed_for: str
    remedy: str = ""
    """The line that mends it; empty if there is nothing to mend."""


def install_line(extra: str) -> str:
    """The line, in the project's folder, that installs the packages of an extra."""
    return f"pip install --constraint constraints.txt '.[{extra}]'"


def reinstall_line(module: str) -> str:
    """The line that puts a package back as it was published."""
    owners = importlib.metadata.packages_distributions().get(module, [module])
    return f"pip install --constraint constraints.txt --force-reinstall --no-deps {owners[0]}"
