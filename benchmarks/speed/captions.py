"""Measure the time and memory for reading a captions file of Cap3D's size.

`python -m benchmarks captions` writes a file of random captions with commas, quotes and both kinds
of ids, reads it in another process, and prints seconds, CPU seconds and peak memory in GiB.
"""

import csv
import hashlib
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.figures import Figure, add_figures, write_figures
from benchmarks.help_text import benchmark_parser

__all__ = ["write_captions"]

_WORDS = 'a 3D model of red wooden chair with four legs, and the "old" tall small house'.split()
_MEASURE = """
import json, resource, sys, time
from pipelines.sources.captions import read_captions
started, used = time.perf_counter(), time.process_time()
captions = read_captions(sys.argv[1])
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
uids = sum(len(name) == 32 for name in captions.texts)
print(f"{len(captions.texts):,} captions ({uids:,} by uid), "
      f"revision {captions.revision}: {seconds:.2f} s, "
      f"{time.process_time() - used:.2f} CPU seconds, peak memory {peak:.2f} GiB")
print(json.dumps([seconds, peak]))
"""


def write_captions(path: Path, num_rows: int, uid_share: float = 0.785) -> None:
    """Write captions of 6 to 40 words; the default share of uids is that of Cap3D's file."""
    rng = random.Random(0)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for number in range(num_rows):
            name = hashlib.sha256(str(number).encode()).hexdigest()
            length = 32 if rng.random() < uid_share else 64
            writer.writerow([name[:length], " ".join(rng.choices(_WORDS, k=rng.randint(6, 40)))])


def main(arguments: list[str] | None = None) -> int:
    """Write the captions, read them, and print the result."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="number of captions")
    add_figures(parser)
    options = parser.parse_args(arguments)
    rows = options.rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.csv"
        write_captions(path, rows)
        print(f"{rows:,} rows, {path.stat().st_size / 2**20:.0f} MiB")
        command = [sys.executable, "-c", _MEASURE, str(path)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    message, numbers = output.splitlines()
    print(message)
    seconds, peak = json.loads(numbers)
    subject = f"{rows:,} captions"
    figures = [
        Figure(f"read {subject}", seconds, "s"),
        Figure(f"peak memory, {subject}", peak, "GiB"),
    ]
    write_figures(options.figures, figures)
    return 0
