"""Common parts of both LRM stages: settings, the objective over a batch."""

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from train.checkpoints.initial_weights import absolute_source, check_source
from train.data.step_views import ViewChoiceConfig
from train.models.lpips import Lpips, LpipsConfig, find_weights, load_lpips
from train.models.lrm.losses import NerfLossConfig
from train.models.lrm.lrm import LRM, LRMConfig
from train.models.lrm.published_weights import LRM_WEIGHTS
from train.settings.train_config import TrainConfig

__all__ = ["LRMTrainConfig", "Objective", "meta_batch"]

AnyLRM = TypeVar("AnyLRM", bound=LRM)


class LRMTrainConfig(TrainConfig, ABC):
    """Settings of both LRM stages, in addition to those of every run."""

    preset: str = "base"
    """Size of the model: base, large (the paper's), small (for one GPU) or tiny (for a CPU)."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Settings of the model that differ from the preset, such as {transformer: {channels: 80}}."""
    init: str | None = None
    """Initial weights: openlrm:FILE, instantmesh:FILE, dino:FILE, the folder of a run or of one of
    its checkpoints, or a file that `lrm weights` wrote. By default random."""
    data: ViewChoiceConfig
    loss: NerfLossConfig
    lpips: LpipsConfig = LpipsConfig()

    @field_validator("init")
    @classmethod
    def _absolute(cls, source: str | None) -> str | None:
        # Workers have other working directories.
        return None if source is None else absolute_source(LRM_WEIGHTS, source)

    @abstractmethod
    def model_sizes(self) -> LRMConfig:
        """Return the complete configuration of the model. Raises BadInput."""

    @abstractmethod
    def new_model(self) -> LRM:
        """Return the model with random weights."""

    def _with_checkpointing(self, model: AnyLRM) -> AnyLRM:
        if self.activation_checkpointing:
            model.recompute_layers()
        return model

    def perceptual_distance(self) -> Lpips | None:
        """Return LPIPS with its published weights; None if it has no weight in the loss."""
        return load_lpips(self.lpips) if self.loss.lpips else None

    def check(self) -> None:
        """Raise BadInput if the settings do not fit each other."""
        super().check()
        self.data.check()
        self.model_sizes()
        if self.loss.lpips:
            find_weights(self.lpips)

    def check_start(self) -> None:
        """Raise BadInput if `init` does not fit the model."""
        if self.init is not None:
            with torch.device("meta"):
                model = self.new_model()
            check_source(LRM_WEIGHTS, model, self.model_sizes(), self.init)


ModelType = TypeVar("ModelType", bound=LRM)
LossType = TypeVar("LossType", bound=NerfLossConfig)


class Objective(nn.Module, ABC, Generic[ModelType, LossType]):
    """Module of a model and its loss, whose forward pass returns the loss terms."""

    def __init__(self, model: ModelType, loss: LossType, lpips: Lpips | None) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        # In a list, so that it is not a submodule: the frozen network is not trained or saved.
        self._lpips = [lpips] if lpips is not None else []

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss terms of a batch: means over its objects."""
        planes = self.model.forward_planes(
            batch["images"], batch["camera_to_world"], batch["intrinsics"]
        )
        by_object = []
        for i in range(len(planes)):
            one = {name: value[i : i + 1] for name, value in batch.items()}
            by_object.append(self.object_terms(planes[i : i + 1], one))
        return {
            name: torch.stack([terms[name] for terms in by_object]).mean() for name in by_object[0]
        }

    @abstractmethod
    def object_terms(self, planes: Tensor, one: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss terms of one object; `one` is a batch of size 1."""

    def lpips_on(self, device: torch.device) -> Lpips | None:
        """Return LPIPS on a device; None if it has no weight in the loss."""
        return self._lpips[0].to(device) if self._lpips else None


def meta_batch(
    data: ViewChoiceConfig, objects: int, image_size: int, target_size: int
) -> dict[str, Tensor]:
    """Return a batch on the meta device with the tensors that both stages use.

    `image_size` and `target_size` are the sides of the input and target views in pixels.
    """
    inputs, views = data.num_inputs, data.num_inputs + data.num_targets
    shapes = {
        "images": (inputs, 3, image_size, image_size),
        "camera_to_world": (inputs, 4, 4),
        "intrinsics": (inputs, 4),
        "target_rgb": (views, 3, target_size, target_size),
        "target_alpha": (views, 1, target_size, target_size),
        "target_camera_to_world": (views, 4, 4),
        "target_intrinsics": (views, 4),
    }
    return {name: torch.empty(objects, *shape, device="meta") for name, shape in shapes.items()}
