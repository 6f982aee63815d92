"""Paths in the checkout."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
OPTIONS = Path(__file__).with_name("options.txt")
"""The options of the command line, one per line. A test fails if one is added or removed."""
