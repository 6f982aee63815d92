"""The `--help` texts of benchmarks: the module's docstring, and the default of every option."""

import argparse
import shutil

__all__ = ["benchmark_parser"]

_COLUMNS = 100


def benchmark_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help shows a benchmark's docstring, and defaults behind the options."""
    return argparse.ArgumentParser(description=description, formatter_class=_Formatter)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size((_COLUMNS, 24)).columns, _COLUMNS)
        super().__init__(prog, max_help_position=28, width=width)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help
        default = action.default
        has_default = default not in (None, argparse.SUPPRESS, [], "") and default is not False
        if text is None or not has_default or "default" in text or not action.option_strings:
            return text
        if isinstance(default, (list, tuple)):
            return f"{text} [default: {' '.join(map(str, default))}]"
        return f"{text} [default: %(default)s]"
