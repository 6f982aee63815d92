"""All subcommands of `lrm`, in the order of its help: a new one is entered here."""

from pipelines.cli.command import Command
from pipelines.cli.commands import (
    build,
    compact,
    completion,
    doctor,
    evaluate,
    export,
    inspect,
    multiview,
    plan,
    reconstruct,
    remove,
    report,
    retry,
    snapshot,
    status,
    train,
    verify,
    weights,
)

__all__ = ["COMMANDS"]

_MODULES = (
    build,
    plan,
    status,
    inspect,
    report,
    verify,
    retry,
    remove,
    compact,
    snapshot,
    export,
    train,
    weights,
    multiview,
    reconstruct,
    evaluate,
    doctor,
    completion,
)
COMMANDS: tuple[Command, ...] = tuple(module.COMMAND for module in _MODULES)
