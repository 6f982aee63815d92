"""Measure the cost of the sample order, and the saving of a shuffle by shards.

`python -m benchmarks order` prints the microseconds per position of the order, and how random the
order is: the correlation of neighbours, and chi squared of the tenths of the samples. With `--root
DATASET --snapshot ID` it also counts requests and bytes for the views of a step, for samples that
are neighbours in a shard: read separately, and in pairs. Pairs show the most that a shuffle by
shards could save.
"""

import itertools
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.figures import Figure, add_figures, write_figures
from benchmarks.help_text import benchmark_parser
from core.ranges import Range, coalesce
from core.storage import Storage
from dataset.snapshots.snapshot import Sample, open_snapshot
from dataset.views import META_MEMBER, view_member
from train.data.order import sample_at, sample_rng
from train.data.step_views import count_views

_GAPS = {"local disk": 1 << 14, "object store": 1 << 18}
_VIEWS = 10
_SEED = 0


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the order, compare the reads if a dataset is given, and print both."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add("--root", help="folder or URI of a dataset, for the comparison of reads")
    add("--snapshot", metavar="ID", help="snapshot in that dataset")
    add("--samples", type=int, default=10**7, help="number of samples in the order")
    add("--positions", type=int, default=20_000, help="number of positions that are timed")
    add_figures(parser)
    args = parser.parse_args(argv)
    size, count = args.samples, args.positions
    started = time.process_time()
    indices = np.array([sample_at(position, size, _SEED) for position in range(count)])
    seconds = time.process_time() - started
    print(f"{1e6 * seconds / count:.1f} us per position; {size:,} samples")
    # In a random permutation neighbours are independent, and all tenths are equally frequent.
    pairs = np.corrcoef(indices[:-1], indices[1:])[0, 1]
    tenths = np.bincount(indices * 10 // size, minlength=10)
    expected = count / 10
    chi = float(((tenths - expected) ** 2 / expected).sum())
    print(f"correlation of neighbours {pairs:+.4f}; chi squared of tenths {chi:.1f} (9 expected)")
    name = f"sample at a position, of {size:,}"
    write_figures(args.figures, [Figure(name, 1e6 * seconds / count, "us")])
    if args.root:
        compare(open_snapshot(Storage(args.root), args.snapshot).samples)


def compare(samples: Sequence[Sample]) -> None:
    """Print requests and bytes per sample for pairs of neighbours, read separately and together."""
    by_position = sorted(samples, key=lambda sample: (sample.shard, sample.entry.offsets[0]))
    pairs = [(a, b) for a, b in itertools.pairwise(by_position) if a.shard == b.shard]
    for storage_kind, gap in _GAPS.items():
        separate, joint = np.zeros(2), np.zeros(2)
        for number, pair in enumerate(pairs):
            pair_ranges = [_wanted(sample, number) for sample in pair]
            separate += sum(_cost(coalesce(ranges, gap)) for ranges in pair_ranges)
            joint += _cost(coalesce(itertools.chain(*pair_ranges), gap))
        for name, cost in (("separately", separate), ("in pairs", joint)):
            requests, read = cost / (2 * len(pairs))
            print(
                f"{storage_kind}, {name}: {requests:.2f} requests, {read / 1024:.0f} KiB per sample"
            )


def _wanted(sample: Sample, number: int) -> list[Range]:
    entry = sample.entry
    chosen = sample_rng(_SEED, number).choice(count_views(sample), _VIEWS, replace=False)
    names = {META_MEMBER, *(view_member(int(view), "rgba") for view in chosen)}
    rows = zip(entry.members, entry.offsets, entry.sizes, strict=True)
    return [(start, start + size) for name, start, size in rows if name in names]


def _cost(spans: Sequence[Range]) -> np.ndarray:
    return np.array([len(spans), sum(stop - start for start, stop in spans)], float)
