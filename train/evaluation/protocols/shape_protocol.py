"""What every protocol of `lrm evaluate` defines."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from train.evaluation.scores import PointCloud

__all__ = ["ShapeProtocol"]


class ShapeProtocol(Protocol):
    """How a predicted shape is compared with the true one."""

    metrics: ClassVar[Mapping[str, str]]
    """The titles of its metrics, by key."""
    has_pictures: ClassVar[bool]
    """Whether it compares pictures, too; if not, every object needs its geometry."""
    has_categories: ClassVar[bool]
    """Whether it reports each category, and the mean over categories."""

    @property
    def identity(self) -> Any:
        """What determines the scores of a pair of shapes, as plain values."""

    def scores(self, shape: PointCloud, reference: PointCloud) -> dict[str, float]:
        """Return the metrics of a shape; both are in the world of the reference."""
