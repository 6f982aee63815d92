"""The figures of a benchmark as a JSON file, which `--figures FILE` writes for `nightly`."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Figure", "add_figures", "read_figures", "write_figures"]


@dataclass(frozen=True)
class Figure:
    """One measured number."""

    name: str
    value: float
    unit: str


def add_figures(parser: argparse.ArgumentParser) -> None:
    """Add the option `--figures`."""
    text = "write the measured figures to this JSON file"
    parser.add_argument("--figures", type=Path, metavar="FILE", help=text)


def write_figures(path: Path | None, figures: Sequence[Figure]) -> None:
    """Write the figures to a JSON file, unless the path is None."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")


def read_figures(path: Path) -> list[Figure]:
    """Read the figures that `write_figures` wrote."""
    return [Figure(**values) for values in json.loads(path.read_text())]
