"""The `lrm` command line."""

from pipelines.cli.entry import main, make_parser

__all__ = ["main", "make_parser"]
