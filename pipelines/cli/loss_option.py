"""The option of the commands that refuse to lose many kept objects."""

import argparse

__all__ = ["add_accept_loss_option"]


def add_accept_loss_option(parser: argparse.ArgumentParser) -> None:
    """Add `--accept-loss`."""
    parser.add_argument(
        "--accept-loss",
        type=_share,
        metavar="SHARE",
        help="Go on although changed data loses up to this share of the kept objects (0 to 1). By "
        "default the command ends with exit code 2 if a source or captions that changed lose "
        "more than 0.05 of them and more than one.",
    )


def _share(text: str) -> float:
    """Return the number in an option. Raises ValueError if it is no share."""
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, got {text}")
    return share
