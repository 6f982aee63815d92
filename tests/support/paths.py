"""Where things lie in the checkout."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
OPTIONS = Path(__file__).with_name("options.txt")
"""The command line's options, one per line: a contract that a test holds."""
