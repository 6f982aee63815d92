"""The option of the commands that refuse to lose many kept objects."""

import argparse
import math

__all__ = ["add_accept_loss_option"]


def add_accept_loss_option(parser: argparse.ArgumentParser) -> None:
    """Add `--accept-loss`."""
    parser.add_argument(
        "--accept-loss",
        type=_share,
        metavar="SHARE",
        help="Largest share of the objects with a sample, 0 to 1, that a changed source or changed "
        "captions may lose; by default 0.05. If they lose more, and more than one, the command "
        "ends with exit code 2 and changes nothing. What filter options drop does not count.",
    )


def _share(text: str) -> float:
    """Return the share that a text is."""
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, got {text}")
    return share
