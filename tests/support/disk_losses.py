"""What a disk may hold after a loss of power: flushed content, and any part of the rest."""

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.support.durable_files import CrashPoint, Disk, DiskRecorder, Node

__all__ = ["Loss", "Tree", "all_losses", "disks_after_loss", "losses_during", "write_tree"]

Tree = Mapping[str, bytes | None]
"""The files and folders (None) below a folder, by path; a folder precedes its files."""
_AGE_SECONDS = 7200.0


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A loss of power, and what is left."""

    step: int
    """Number of the point at which the power was lost."""
    is_done: bool
    """Whether the work had ended."""
    what: str
    """What was lost, and before which call."""
    tree: Tree


def losses_during(folder: Path, work: Callable[[], object], num_random: int = 2) -> list[Loss]:
    """Do some work that writes below a folder; return a loss for each disk that it may leave."""
    points: list[CrashPoint] = []
    with DiskRecorder(folder, points.append) as recorder:
        work()
        recorder.point("the end")
    return list(all_losses(points, num_random=num_random))


def all_losses(
    points: Sequence[CrashPoint], *, seed: int = 0, num_random: int = 2, every: int = 1
) -> Iterator[Loss]:
    """Yield a loss for each different disk at every `every`-th point and at the last one.

    Equal disks at the last point and before it are different: only the last must be complete.
    """
    seen = set()
    for step, point in enumerate(points):
        is_done = step == len(points) - 1
        if step % every and not is_done:
            continue
        for lost, tree in disks_after_loss(point, seed, num_random):
            key = (frozenset(tree.items()), is_done)
            if key not in seen:
                seen.add(key)
                what = f"{lost}, before {point.event}"
                yield Loss(step=step, is_done=is_done, what=what, tree=tree)


def disks_after_loss(point: CrashPoint, seed: int, num_random: int) -> Iterator[tuple[str, Tree]]:
    """Yield what may be left after a loss of power, each with the name of what was lost.

    The last `num_random` are mixtures, which depend on `seed`.
    """
    new, old = point.current, point.durable
    flushed, written = partial(_flushed, old), partial(_written, new)
    unflushed = {node for node, data in new.contents.items() if old.contents.get(node) != data}

    def damaged(damage: Callable[[bytes], bytes], node: Node) -> bytes:
        data = new.contents[node]
        return damage(data) if node in unflushed else data

    now, then, both = partial(_names, new), partial(_names, old), partial(_both, old, new)
    yield "nothing", _tree(point.root, now, written)
    yield "all that was not flushed", _tree(point.root, then, flushed)
    yield "contents: empty", _tree(point.root, now, partial(damaged, lambda _: b""))
    yield "contents: half", _tree(point.root, now, partial(damaged, _half))
    yield "contents: zeros", _tree(point.root, now, partial(damaged, lambda data: bytes(len(data))))
    yield "entries: all changes", _tree(point.root, then, written)
    yield "entries: deletions", _tree(point.root, both, written)
    for number in range(num_random):
        rng = random.Random(f"{seed}-{number}-{point.event}")
        yield "a random part", _random_tree(point, rng)


def _random_tree(point: CrashPoint, rng: random.Random) -> Tree:
    new, old = point.current, point.durable
    chosen: dict[Node, bytes] = {}

    def names(folder: Node) -> Mapping[str, Node]:
        before, after = _names(old, folder), _names(new, folder)
        result = {}
        for name in sorted({*before, *after}):
            node = rng.choice([before.get(name), after.get(name)])
            if node is not None:
                result[name] = node
        return result

    def content(node: Node) -> bytes:
        data = _written(new, node)
        if node not in chosen and old.contents.get(node) == data:
            chosen[node] = data
        if node not in chosen:
            cut = data[: rng.randrange(len(data) + 1)]
            options = [data, _flushed(old, node), b"", cut, cut + bytes(len(data) - len(cut))]
            chosen[node] = rng.choice(options)
        return chosen[node]

    return _tree(point.root, names, content)


def write_tree(folder: Path, tree: Tree) -> None:
    """Write files and folders to an empty folder, with the times of two hours ago.

    A compaction keeps new files that nothing refers to for an hour.
    """
    then = time.time() - _AGE_SECONDS
    for path, data in tree.items():
        if data is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(data)
            os.utime(folder / path, (then, then))


def _names(disk: Disk, folder: Node) -> Mapping[str, Node]:
    return disk.entries.get(folder, {})


def _both(old: Disk, new: Disk, folder: Node) -> Mapping[str, Node]:
    """Return the entries of a folder if none was deleted."""
    return {**_names(old, folder), **_names(new, folder)}


def _flushed(disk: Disk, node: Node) -> bytes:
    return disk.contents.get(node, b"")


def _written(disk: Disk, node: Node) -> bytes:
    return disk.contents[node]


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _tree(
    root: Node,
    names: Callable[[Node], Mapping[str, Node]],
    content: Callable[[Node], bytes],
) -> Tree:
    tree: dict[str, bytes | None] = {}
    waiting = [("", root)]
    folders = {root}
    while waiting:
        prefix, folder = waiting.pop()
        for name, node in names(folder).items():
            path = f"{prefix}{name}"
            if node.is_folder:
                if node in folders:
                    continue  # a renamed folder has one name
                folders.add(node)
                tree[path] = None
                waiting.append((f"{path}/", node))
            else:
                tree[path] = content(node)
    return tree
