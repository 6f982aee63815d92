"""Which rendered objects go into one shard: an order that follows from the plan alone.

So the same plan gives the same shards on any number of workers.
"""

from collections.abc import Iterator, Mapping, Sequence

from pipelines.building.stages.object_state import ObjectState

__all__ = ["ShardGroups"]


class ShardGroups:
    """Groups the objects of a plan into shards."""

    def __init__(
        self, order: Sequence[str], samples_per_shard: int, broken: Mapping[str, Sequence[str]]
    ) -> None:
        """`broken` names the objects of each damaged shard, which go back together."""
        together = {asset_id for ids in broken.values() for asset_id in ids}
        others = [asset_id for asset_id in order if asset_id not in together]
        self._groupers = [_Grouper(others, samples_per_shard)]
        self._groupers += [_Grouper(ids, len(ids)) for ids in broken.values()]
        self._of_object = {
            asset_id: grouper for grouper in self._groupers for asset_id in grouper.order
        }

    @property
    def waiting(self) -> int:
        """Objects that are rendered and whose group is not complete yet."""
        return sum(grouper.waiting for grouper in self._groupers)

    def settle(self, asset_id: str, rendered: ObjectState | None) -> None:
        """Note how an object ended: with a rendered sample to pack, or without one (None)."""
        self._of_object[asset_id].settle(asset_id, rendered)

    def take(self) -> Iterator[tuple[ObjectState, ...]]:
        """Yield the groups that have become complete."""
        for grouper in self._groupers:
            yield from grouper.take()


class _Grouper:
    """Groups objects in a given order, not in that of completion."""

    def __init__(self, order: Sequence[str], size: int) -> None:
        self.order = order
        self.waiting = 0
        """Objects that are rendered and not yet handed out."""
        self._size = size
        self._settled: dict[str, ObjectState | None] = {}
        self._next = 0
        self._group: list[ObjectState] = []

    def settle(self, asset_id: str, rendered: ObjectState | None) -> None:
        """Note how an object ended."""
        self._settled[asset_id] = rendered
        self.waiting += rendered is not None

    def take(self) -> Iterator[tuple[ObjectState, ...]]:
        """Yield the complete groups; the last one may be short."""
        while self._next < len(self.order) and self.order[self._next] in self._settled:
            state = self._settled.pop(self.order[self._next])
            self._next += 1
            if state is not None:
                self._group.append(state)
            ended = self._next == len(self.order)
            if self._group and (len(self._group) == self._size or ended):
                self.waiting -= len(self._group)
                yield tuple(self._group)
                self._group = []
