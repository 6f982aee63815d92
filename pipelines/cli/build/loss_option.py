"""The option of the commands that refuse to lose many kept objects."""

import argparse
from typing import Any

__all__ = ["add_accept_loss_option"]


def add_accept_loss_option(parser: argparse.ArgumentParser) -> None:
    """Add `--accept-loss`."""
    parser.add_argument(
        "--accept-loss",
        type=float,
        action=_Share,
        metavar="SHARE",
        help="Largest share of the objects with a sample, 0 to 1, that a changed source or changed "
        "captions may lose; by default 0.05. If they lose more, and more than one, the command "
        "ends with exit code 2 and changes nothing. What filter options drop does not count.",
    )


class _Share(argparse.Action):
    """Stores a share; ends with an error if it is not between 0 and 1."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        if not 0 <= values <= 1:
            parser.error(f"argument {option}: must be between 0 and 1, got {values:g}")
        setattr(namespace, self.dest, values)
