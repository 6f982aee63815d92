"""The protocol of Pixel2Mesh (Wang et al. 2018, section 4): squared distances in a fixed frame."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from train.evaluation.metrics import match_points, squared_metrics
from train.evaluation.scores import PointCloud

__all__ = ["Pixel2MeshProtocol"]

_DIAGONAL = 0.57
"""Diagonal of the true object's bounding box: ShapeNet scales it to 1, the published data by 0.57
after that."""


@dataclass(frozen=True, kw_only=True)
class Pixel2MeshProtocol:
    """Both shapes are scaled alike, by the true object's bounding box.

    The predicted shape is not aligned in any way, so its position and size count. Points are spread
    evenly over both surfaces, as in the paper; the released script takes the predicted vertices.
    """

    metrics: ClassVar[Mapping[str, str]] = {
        "chamfer_squared": "squared CD x 1000",
        "f_score_1e-4": "F at 1e-4",
        "f_score_2e-4": "F at 2e-4",
    }
    """Short, for the columns of the table of categories; CD is the Chamfer distance."""
    has_pictures: ClassVar[bool] = False
    has_categories: ClassVar[bool] = True

    @property
    def identity(self) -> Any:
        """The protocol's name: it has no settings."""
        return "pixel2mesh"

    def scores(self, shape: PointCloud, reference: PointCloud) -> dict[str, float]:
        """Return the metrics of `train.evaluation.metrics.squared_metrics`."""
        centre = (reference.low + reference.high) / 2
        scale = _DIAGONAL / max(float(np.linalg.norm(reference.high - reference.low)), 1e-12)

        def framed(cloud: PointCloud) -> Float[Tensor, "1 n 3"]:
            return torch.from_numpy(((cloud.points - centre) * scale).astype(np.float32))[None]

        metrics = squared_metrics(match_points(framed(shape), framed(reference)))
        return {name: float(value) for name, value in metrics.items()}
