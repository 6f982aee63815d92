"""The tables that `lrm evaluate` prints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from core.safe_text import printable
from pipelines.cli.tables import counted, make_table
from pipelines.evaluation.evaluate import OBJECTS, SUMMARY

__all__ = ["show_scores"]

_MAX_CATEGORIES = 30
"""Rows of the table of categories: those with most objects; the file has all."""

_MEAN = "mean of the categories"


def show_scores(summary: Mapping[str, Any], titles: Mapping[str, str], out: Path) -> None:
    """Print the summary of an evaluation; `titles` has those of its metrics."""
    console = Console(highlight=False)
    title = counted(summary["objects"], "object")
    table = make_table(title, ["metric"], ["mean", "95 % from", "to", "median", "objects"])
    for name, values in summary["metrics"].items():
        numbers = [values[key] for key in ("mean", "low", "high", "median")]
        shown = ["" if number is None else f"{number:.4f}" for number in numbers]
        table.add_row(titles[name], *shown, str(values["objects"]))
    console.print(table)
    if "categories" in summary:
        console.print(_categories(summary, titles))
    has_shapes = "psnr" in summary["metrics"]
    if has_shapes and "chamfer" not in summary["metrics"]:
        line = "no Chamfer distance: the dataset has no geometry; lrm build --geometry adds it"
        console.print(line, soft_wrap=True)
    if summary["missing"]:
        missing = counted(len(summary["missing"]), "object")
        console.print(f"no mesh for {missing} of the ground truth", soft_wrap=True)
    line = f"per object: {out / OBJECTS}; summary: {out / SUMMARY}"
    console.print(line, soft_wrap=True, markup=False)


def _categories(summary: Mapping[str, Any], titles: Mapping[str, str]) -> Table:
    """Return the means of the largest categories, in alphabetical order, and the mean over all."""
    categories = summary["categories"]
    largest = sorted(categories, key=lambda name: -categories[name]["objects"])[:_MAX_CATEGORIES]
    hidden = len(categories) - len(largest)
    title = "categories" if not hidden else f"categories, without {hidden} that have few objects"
    keys = [key for key in titles if all(key in values for values in categories.values())]
    table = make_table(title, ["category"], ["objects", *(titles[key] for key in keys)])
    for name, values in categories.items():
        if name in largest:
            numbers = [f"{values[key]:.4f}" for key in keys]
            table.add_row(escape(printable(name)), str(values["objects"]), *numbers)
    if (mean := summary["category_mean"]) is not None:
        table.columns[0].min_width = len(_MEAN)
        table.add_row(_MEAN, "", *(f"{mean[key]:.4f}" for key in keys))
    return table
