"""The assignment of rendered objects to shards, which depends on the plan's order alone.

The same plan therefore gives the same shards on any number of workers.
"""

from collections.abc import Iterator, Mapping, Sequence

from pipelines.building.stages.object_state import ObjectState

__all__ = ["ShardGroups"]


class ShardGroups:
    """Groups the objects of a plan into shards."""

    def __init__(
        self, order: Sequence[str], samples_per_shard: int, damaged: Mapping[str, Sequence[str]]
    ) -> None:
        """`order` is that of the plan's objects.

        `damaged` maps each damaged shard to its objects, which are packed together again.
        """
        in_damaged = {asset_id for ids in damaged.values() for asset_id in ids}
        others = [asset_id for asset_id in order if asset_id not in in_damaged]
        self._groupers = [_Grouper(others, samples_per_shard)]
        self._groupers += [_Grouper(ids, len(ids)) for ids in damaged.values()]
        self._of_object = {
            asset_id: grouper for grouper in self._groupers for asset_id in grouper.order
        }

    @property
    def waiting(self) -> int:
        """The number of rendered objects whose group is not complete yet."""
        return sum(grouper.waiting for grouper in self._groupers)

    def resolve(self, asset_id: str, rendered: ObjectState | None) -> None:
        """Record the outcome of an object: its state if it has a sample to pack, else None."""
        self._of_object[asset_id].resolve(asset_id, rendered)

    def take_complete(self) -> Iterator[tuple[ObjectState, ...]]:
        """Yield the groups that became complete since the last call."""
        for grouper in self._groupers:
            yield from grouper.take_complete()


class _Grouper:
    """Groups objects in a given order, whatever the order of their completion."""

    def __init__(self, order: Sequence[str], size: int) -> None:
        self.order = order
        self.waiting = 0
        """The number of rendered objects that were not yielded yet."""
        self._size = size
        self._resolved: dict[str, ObjectState | None] = {}
        self._next = 0
        self._group: list[ObjectState] = []

    def resolve(self, asset_id: str, rendered: ObjectState | None) -> None:
        """Record the outcome of an object; see `ShardGroups.resolve`."""
        self._resolved[asset_id] = rendered
        self.waiting += rendered is not None

    def take_complete(self) -> Iterator[tuple[ObjectState, ...]]:
        """Yield the complete groups; the last group of the order may be smaller."""
        while self._next < len(self.order) and self.order[self._next] in self._resolved:
            state = self._resolved.pop(self.order[self._next])
            self._next += 1
            if state is not None:
                self._group.append(state)
            ended = self._next == len(self.order)
            if self._group and (len(self._group) == self._size or ended):
                self.waiting -= len(self._group)
                yield tuple(self._group)
                self._group = []
