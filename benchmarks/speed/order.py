"""What the order of samples costs, and what a shuffle by shards would save.

`python -m benchmarks order` times the order for 10^7 samples. With `--root DATASET --snapshot ID`
it also counts the requests and bytes for a step's views of samples that lie side by side in their
shard, read one by one and in pairs: reading in pairs is the most that neighbours can give.
"""

import argparse
import itertools
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.figures import Figure, add_figures, write_figures
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
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root")
    parser.add_argument("--snapshot")
    parser.add_argument("--samples", type=int, default=10**7)
    parser.add_argument("--positions", type=int, default=20_000)
    add_figures(parser)
    args = parser.parse_args(argv)
    size, count = args.samples, args.positions
    started = time.process_time()
    found = np.array([sample_at(position, size, _SEED) for position in range(count)])
    seconds = time.process_time() - started
    print(f"{1e6 * seconds / count:.1f} us a position; {size:,} samples")
    # Of a random permutation: neighbours in the order are independent, tenths are hit alike.
    pairs = np.corrcoef(found[:-1], found[1:])[0, 1]
    tenths = np.bincount(found * 10 // size, minlength=10)
    expected = count / 10
    chi = float(((tenths - expected) ** 2 / expected).sum())
    print(f"correlation of neighbours {pairs:+.4f}; chi squared of tenths {chi:.1f} (9 expected)")
    name = f"sample at a position, of {size:,}"
    write_figures(args.figures, [Figure(name, 1e6 * seconds / count, "us")])
    if args.root:
        compare(open_snapshot(Storage(args.root), args.snapshot).samples)


def compare(samples: Sequence[Sample]) -> None:
    """Requests and bytes for pairs of neighbours, apart and together."""
    placed = sorted(samples, key=lambda sample: (sample.shard, sample.entry.offsets[0]))
    pairs = [(a, b) for a, b in itertools.pairwise(placed) if a.shard == b.shard]
    for where, gap in _GAPS.items():
        apart, together = np.zeros(2), np.zeros(2)
        for number, pair in enumerate(pairs):
            wanted = [_wanted(sample, number) for sample in pair]
            apart += sum(_cost(coalesce(ranges, gap)) for ranges in wanted)
            together += _cost(coalesce(itertools.chain(*wanted), gap))
        for name, cost in (("apart", apart), ("together", together)):
            requests, read = cost / (2 * len(pairs))
            print(f"{where}, {name}: {requests:.2f} requests, {read / 1024:.0f} KiB a sample")


def _wanted(sample: Sample, number: int) -> list[Range]:
    entry = sample.entry
    chosen = sample_rng(_SEED, number).choice(count_views(sample), _VIEWS, replace=False)
    names = {META_MEMBER, *(view_member(int(view), "rgba") for view in chosen)}
    rows = zip(entry.members, entry.offsets, entry.sizes, strict=True)
    return [(start, start + size) for name, start, size in rows if name in names]


def _cost(spans: Sequence[Range]) -> np.ndarray:
    return np.array([len(spans), sum(stop - start for start, stop in spans)], float)
