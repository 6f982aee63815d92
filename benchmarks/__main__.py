"""Run a benchmark: `python -m benchmarks NAME [OPTIONS]`. Without a name, list all benchmarks."""

import ast
import difflib
import importlib
import importlib.util
import sys
from pathlib import Path

from benchmarks.registry import BENCHMARKS

__all__ = ["main"]


def main(words: list[str]) -> int:
    """Run the benchmark that the first word names; return 2 if that name is unknown."""
    if not words or words[0] in ("-h", "--help"):
        print("usage: python -m benchmarks NAME [OPTIONS]")
        print("       python -m benchmarks NAME --help   what it measures, and its options\n")
        for name in BENCHMARKS:
            print(f"  {name:<18} {purpose(name)}")
        return 0
    name = words[0]
    if name not in BENCHMARKS:
        close = difflib.get_close_matches(name, BENCHMARKS, n=1)
        hint = f"did you mean {close[0]}?" if close else "`python -m benchmarks` lists them all"
        print(f"benchmarks: error: unknown benchmark {name}; {hint}", file=sys.stderr)
        return 2
    sys.argv = [f"python -m benchmarks {name}", *words[1:]]
    return importlib.import_module(BENCHMARKS[name]).main() or 0


def purpose(name: str) -> str:
    """Return the first line of a benchmark's docstring, without importing it."""
    spec = importlib.util.find_spec(BENCHMARKS[name])
    assert spec is not None
    assert spec.origin is not None
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
