"""The protocol of InstantMesh (arXiv 2404.07191, section 4): pictures, Chamfer-L1, F-score."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from train.evaluation.metrics import chamfer_distance, f_score, match_points
from train.evaluation.scores import PointCloud

__all__ = ["InstantMeshProtocol"]


@dataclass(frozen=True, kw_only=True)
class InstantMeshProtocol:
    """Each shape is moved and scaled by its own bounding box into [-1, 1]^3.

    The reason is that images do not determine an object's position and size.
    """

    metrics: ClassVar[Mapping[str, str]] = {"chamfer": "Chamfer distance", "f_score": "F-score"}
    has_pictures: ClassVar[bool] = True
    has_categories: ClassVar[bool] = False

    threshold: float
    """Distance below which a point counts as matched in the F-score, in units of [-1, 1]^3."""

    @property
    def identity(self) -> Any:
        """The threshold alone, so that scores of versions without other protocols stay valid."""
        return self.threshold

    def scores(self, shape: PointCloud, reference: PointCloud) -> dict[str, float]:
        """Return chamfer (see `train.evaluation.metrics.chamfer_distance`) and f_score."""
        match = match_points(shape.normalised(), reference.normalised())
        return {
            "chamfer": float(chamfer_distance(match)),
            "f_score": float(f_score(match, self.threshold)),
        }
