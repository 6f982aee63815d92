"""The finding of a check, and the commands that install packages."""

import importlib.metadata
from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "State", "install_command", "reinstall_command"]

State = Literal["ok", "missing", "note"]
"""`missing`: it does not work; `note`: it works, but it is limited or not optimal."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check; the field names are keys of `lrm doctor --json`."""

    what: str
    """The thing that was checked."""
    state: State
    found: str
    """The version or size of that thing, or the problem and its cause."""
    needed_for: str
    """The commands, options or features that need it."""
    remedy: str = ""
    """The command that fixes the problem; empty if there is none."""


def install_command(extra: str) -> str:
    """Return the command that installs the packages of an extra, in the project's folder."""
    return f"pip install --constraint constraints.txt '.[{extra}]'"


def reinstall_command(module: str) -> str:
    """Return the command that reinstalls the package of a module as it was published."""
    owners = importlib.metadata.packages_distributions().get(module, [module])
    return f"pip install --constraint constraints.txt --force-reinstall --no-deps {owners[0]}"
